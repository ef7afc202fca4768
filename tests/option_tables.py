# SPDX-License-Identifier: MIT
"""The parts of ``docs/training.md`` that are generated from the options.

``python tests/option_tables.py`` writes them into the document, between the comments that name them.
"""

from pathlib import Path

from nervcodec.options import GROUPS, SECTIONS
from nervcodec.settings import Setting, join_names, settings_of
from nervcodec.training.config import FUSIONS, PIXEL_LOSSES, FitConfig

DOCUMENT = Path(__file__).parents[1] / "docs" / "training.md"
PLAIN = {
    "l1": "mean absolute error",
    "l2": "mean squared error",
    "log-l2": "logarithm of each frame's squared error: its PSNR",
    "ssim": "1 - SSIM",
}
PARTS = {"l1": "L1", "l2": "L2", "ssim": "(1 - SSIM)", "ms-ssim": "(1 - MS-SSIM)"}


def losses() -> str:
    """The definition of each pixel loss."""
    rows = []
    for name in PIXEL_LOSSES:
        parts = " + ".join(f"{weight:g} {PARTS[part]}" for weight, part in FUSIONS.get(name, ()))
        default = " (default)" if name == FitConfig.loss else ""
        rows.append(f"* `{name}`{default}: {parts or PLAIN[name]}")
    return "\n".join(rows)


def options() -> str:
    """All options of ``encode``, with their names in Python where these are others."""
    rows = ["| option | values | default | |", "| --- | --- | --- | --- |"]
    for section in SECTIONS:
        rows.append(f"| **{section}** | | | |")
        for kind in GROUPS:
            rows += [row(name, each) for name, each in settings_of(kind).items() if each.section == section]
    return "\n".join(rows)


def row(name: str, setting: Setting) -> str:
    """The row of one option."""
    option = "" if setting.flag == "" else setting.option(name)
    spelling = f"`{option} {setting.metavar}`" if setting.metavar else f"`{option}`"
    if not option:
        spelling = f"`{name}` (Python)"
    elif option.removeprefix("--").replace("-", "_") != name:
        spelling += f" (`{name}`)"
    values = join_names(setting.choices) or ", ".join(setting.forms) or setting.bounds
    network = f"{setting.network} only. " if setting.network else ""
    return f"| {spelling} | {values} | {setting.default_text} | {network}{setting.help} |"


TABLES = {"losses": losses, "options": options}


def block(name: str, table: str) -> str:
    """A generated part between the comments that name it."""
    return f"<!-- {name}: python tests/option_tables.py -->\n\n{table}\n\n<!-- end of {name} -->"


def written(text: str) -> str:
    """The document with all generated parts up to date."""
    for name, table in TABLES.items():
        before, _, rest = text.partition(f"<!-- {name}:")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        assert end, f"{DOCUMENT.name} has no comments around {name}"
        text = before + block(name, table()) + after
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
