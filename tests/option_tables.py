# SPDX-License-Identifier: MIT
"""The tables of ``docs/training.md`` that are made of the options themselves.

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
    """What each pixel loss is."""
    rows = ["| `--loss` | |", "| --- | --- |"]
    for name in PIXEL_LOSSES:
        parts = " + ".join(f"{weight:g} {PARTS[part]}" for weight, part in FUSIONS.get(name, ()))
        default = " (default)" if name == FitConfig.loss else ""
        rows.append(f"| `{name}`{default} | {parts or PLAIN[name]} |")
    return "\n".join(rows)


def options() -> str:
    """All options of ``encode``, as the command line and as Python has them."""
    rows = ["| option | in Python | values | default | |", "| --- | --- | --- | --- | --- |"]
    for section in SECTIONS:
        rows.append(f"| **{section}** | | | | |")
        rows += [
            row(name, said) for kind in GROUPS for name, said in settings_of(kind).items() if said.section == section
        ]
    return "\n".join(rows)


def row(name: str, said: Setting) -> str:
    """Of one option."""
    flag = "" if said.flag == "" else f"`{said.option(name)}`"
    value = f" `{said.metavar}`" if said.metavar and flag else ""
    values = join_names(said.choices) or ", ".join(said.forms) or said.bounds
    network = f"{said.network} only. " if said.network else ""
    return f"| {flag}{value} | `{name}` | {values} | {said.default_text} | {network}{said.help} |"


TABLES = {"losses": losses, "options": options}


def block(name: str, table: str) -> str:
    """A table between the comments that name it."""
    return f"<!-- {name}: python tests/option_tables.py -->\n\n{table}\n\n<!-- end of {name} -->"


def written(text: str) -> str:
    """The document with all tables as they should be."""
    for name, table in TABLES.items():
        before, _, rest = text.partition(f"<!-- {name}:")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        assert end, f"{DOCUMENT.name} has no place for the table of {name}"
        text = before + block(name, table()) + after
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
