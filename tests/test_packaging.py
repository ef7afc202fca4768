# SPDX-License-Identifier: MIT
"""What is installed, and that the repository keeps its own promises."""

import re
import subprocess
from pathlib import Path

import nervcodec

ROOT = Path(__file__).parent.parent


def test_every_package_is_listed_for_the_wheel():
    listed = set(re.findall(r'^  "(nervcodec[\w.]*)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    found = {"nervcodec.cli", "nervcodec.formats"}
    found |= {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "nervcodec").rglob("__init__.py")}
    assert listed == found


def test_versions_agree():
    assert f'version = "{nervcodec.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_every_source_file_names_its_licence():
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    files = [ROOT / name for name in names] or list(ROOT.glob("nervcodec/**/*.py"))
    assert [f for f in files if f.exists() and not f.read_text().startswith("# SPDX-License-Identifier: MIT")] == []


def test_the_readme_names_real_options():
    """Every option in the README's commands exists."""
    from nervcodec.cli.main import cli

    known = {command: {o for p in c.params for o in p.opts} for command, c in cli.commands.items()}
    for command, rest in re.findall(r"^\$? ?nervcodec (\w+) ([^\n#]*)", (ROOT / "README.md").read_text(), re.MULTILINE):
        used = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", " " + rest))
        assert used <= known[command], (command, used - known[command])
