# SPDX-License-Identifier: MIT
"""Who may import whom, read from the source: a table of what each room may not import, and no circle of modules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"nervcodec": ROOT / "nervcodec", "nervcodec.cli": ROOT / "cli", "nervcodec.formats": ROOT / "formats"}

BELOW_VIDEO = [f"but:nervcodec.{room}" for room in ("media", "formats", "errors", "settings", "ranges", "threads")]
BELOW_BASE = [*BELOW_VIDEO, *(f"but:nervcodec.{room}" for room in ("base", "events", "recent"))]

# By the beginning of a module's name: what it may not import, at the top of the file or inside a function. An import
# for the type checker alone does not count, since it does not happen.
MAY_NOT = {
    "nervcodec.formats": ["torch", "nervcodec.", "but:nervcodec.formats", "but:nervcodec.errors"],
    "nervcodec.errors": ["nervcodec."],
    "nervcodec.events": ["nervcodec."],
    "nervcodec.recent": ["torch", "nervcodec."],
    "nervcodec.threads": ["torch", "nervcodec."],
    "nervcodec.coordinates": ["torch", "nervcodec.", "but:nervcodec.indexing", "but:nervcodec.errors"],
    "nervcodec.colour": ["torch", "nervcodec.", "but:nervcodec.formats"],
    "nervcodec.settings": ["torch", "nervcodec.", "but:nervcodec.errors"],
    "nervcodec.ranges": ["torch", "nervcodec.", "but:nervcodec.errors"],
    "nervcodec.media": ["torch", "nervcodec.", *BELOW_VIDEO],
    "nervcodec.base": ["torch", "nervcodec.", *BELOW_BASE],
    "nervcodec.network": [
        "nervcodec.media",
        "nervcodec.base",
        "nervcodec.training",
        "nervcodec.semantic",
        "nervcodec.search",
        "nervcodec.jobs",
    ],
    "nervcodec.semantic": ["nervcodec.media", "nervcodec.network", "nervcodec.training", "nervcodec.search"],
    "nervcodec.decoding": ["nervcodec.training", "nervcodec.semantic", "nervcodec.search", "nervcodec.encoding"],
    "nervcodec.training": ["nervcodec.media", "nervcodec.semantic", "nervcodec.search", "nervcodec.decoding"],
    "nervcodec.search": ["nervcodec.training", "nervcodec.encoding", "nervcodec.evaluation", "nervcodec.api"],
    "nervcodec.index": ["nervcodec.training", "nervcodec.encoding", "nervcodec.evaluation", "nervcodec.api"],
    "nervcodec.serve": [
        "nervcodec.training",
        "nervcodec.encoding",
        "nervcodec.evaluation",
        "nervcodec.jobs",
        "nervcodec.api",
    ],
    "nervcodec.encoding": ["nervcodec.search", "nervcodec.evaluation", "nervcodec.api", "nervcodec.jobs"],
    "nervcodec.evaluation": ["nervcodec.encoding", "nervcodec.api", "nervcodec.jobs"],
    "nervcodec.jobs": ["nervcodec.search", "nervcodec.evaluation", "nervcodec.api", "nervcodec.index"],
    "nervcodec.api": ["nervcodec.jobs"],
    "nervcodec.": ["nervcodec.cli", "click", "rich", "nervcodec.index", "nervcodec.serve"],
}
# Who may import what is not always there.
ALONE = {
    "ray": "nervcodec.jobs.cluster",
    "lancedb": "nervcodec.index",
    "starlette": "nervcodec.serve",
    "uvicorn": "nervcodec.serve",
}
USES_AV = {f"nervcodec.base.{name}" for name in ("av1", "copied", "packets")}  # beside nervcodec.media
EXEMPT = {"nervcodec.cli", "nervcodec.__main__"}  # from the last row
ABOVE = {"nervcodec.serve": "nervcodec.index"}  # from that row too: an optional room that stands on another


def modules() -> dict[str, Path]:
    """Files by the module they are."""
    found = {}
    for package, folder in ROOMS.items():
        for path in folder.rglob("*.py"):
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


FILES = modules()


def imports(path: Path) -> set[str]:
    """Modules and names that a file imports when it runs."""
    tree = ast.parse(path.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "no relative imports"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def begins(name: str, with_: str) -> bool:
    return name.startswith(with_) if with_.endswith(".") else name == with_ or name.startswith(f"{with_}.")


@pytest.mark.parametrize("room", MAY_NOT)
def test_rooms_import_only_what_they_may(room):
    refused = [rule for rule in MAY_NOT[room] if not rule.startswith("but:")]
    allowed = [rule.removeprefix("but:") for rule in MAY_NOT[room] if rule.startswith("but:")]
    members = [name for name in FILES if begins(name, room)]
    assert members
    for name in members:
        if room == "nervcodec." and any(begins(name, exempt) for exempt in EXEMPT):
            continue
        stands_on = [below for above, below in ABOVE.items() if begins(name, above)]
        for target in imports(FILES[name]):
            if any(begins(target, below) for below in stands_on):
                continue
            if any(begins(target, rule) and not begins(name, rule) for rule in refused):
                assert any(begins(target, rule) for rule in allowed), f"{name} imports {target}"


def test_media_libraries_are_used_where_media_is_read():
    users = {name for name, path in FILES.items() if any(begins(target, "av") for target in imports(path))}
    assert users
    assert all(begins(name, "nervcodec.media") or name in USES_AV for name in users)


@pytest.mark.parametrize("library", ALONE)
def test_one_place_knows_a_library(library):
    users = {name for name, path in FILES.items() if any(begins(target, library) for target in imports(path))}
    assert users
    assert all(begins(name, ALONE[library]) for name in users)


def test_there_is_no_circle():
    """Imports inside functions count: what runs later is a circle all the same."""
    graph = {name: {t for t in imports(path) if t in FILES and t != name} for name, path in FILES.items()}
    for targets in graph.values():
        targets.discard("nervcodec")  # the package itself, which resolves its names lazily
    done, doing = set(), []

    def visit(name: str) -> None:
        assert name not in doing, " -> ".join([*doing[doing.index(name) :], name])
        if name in done:
            return
        doing.append(name)
        for target in sorted(graph[name]):
            visit(target)
        doing.pop()
        done.add(name)

    for name in sorted(graph):
        if name != "nervcodec":
            visit(name)
