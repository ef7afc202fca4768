# SPDX-License-Identifier: MIT
"""Dependencies between packages, read from the source: forbidden imports of each package, and no import cycles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"nervcodec": ROOT / "nervcodec", "nervcodec.cli": ROOT / "cli", "nervcodec.formats": ROOT / "formats"}

MEDIA_MAY = [f"but:nervcodec.{name}" for name in ("media", "formats", "errors", "settings", "ranges", "threads")]
BASE_MAY = [*MEDIA_MAY, *(f"but:nervcodec.{name}" for name in ("base", "events"))]

# Forbidden imports by package, at the top of a file or inside a function; "but:" marks exceptions. Imports under
# TYPE_CHECKING do not run and do not count.
FORBIDDEN = {
    "nervcodec.formats": ["torch", "nervcodec.", "but:nervcodec.formats", "but:nervcodec.errors"],
    "nervcodec.errors": ["nervcodec."],
    "nervcodec.events": ["nervcodec."],
    "nervcodec.threads": ["torch", "nervcodec."],
    "nervcodec.coordinates": ["torch", "nervcodec.", "but:nervcodec.coordinates", "but:nervcodec.errors"],
    "nervcodec.colour": ["torch", "nervcodec.", "but:nervcodec.formats"],
    "nervcodec.settings": ["torch", "nervcodec.", "but:nervcodec.errors"],
    "nervcodec.ranges": ["torch", "nervcodec.", "but:nervcodec.errors"],
    "nervcodec.media": ["torch", "nervcodec.", *MEDIA_MAY],
    "nervcodec.base": ["torch", "nervcodec.", *BASE_MAY],
    "nervcodec.network": [
        "nervcodec.media",
        "nervcodec.base",
        "nervcodec.training",
        "nervcodec.semantic",
        "nervcodec.search",
        "nervcodec.jobs",
    ],
    "nervcodec.semantic": ["nervcodec.media", "nervcodec.network", "nervcodec.training", "nervcodec.search"],
    "nervcodec.decoding": [
        "nervcodec.training",
        "nervcodec.encoding",
        "nervcodec.evaluation",
        "nervcodec.jobs",
        "nervcodec.semantic",  # but for NervVideo.search
        "nervcodec.search",
        *(f"but:nervcodec.search.{name}" for name in ("moments", "query", "scores")),
    ],
    "nervcodec.training": ["nervcodec.media", "nervcodec.semantic", "nervcodec.search", "nervcodec.decoding"],
    "nervcodec.search": ["nervcodec.training", "nervcodec.encoding", "nervcodec.evaluation"],
    "nervcodec.index": ["nervcodec.training", "nervcodec.encoding", "nervcodec.evaluation"],
    "nervcodec.serve": [
        "nervcodec.training",
        "nervcodec.encoding",
        "nervcodec.evaluation",
        "nervcodec.jobs",
    ],
    "nervcodec.encoding": ["nervcodec.search", "nervcodec.evaluation", "nervcodec.jobs"],
    "nervcodec.evaluation": ["nervcodec.encoding", "nervcodec.jobs"],
    "nervcodec.jobs": ["nervcodec.search", "nervcodec.evaluation", "nervcodec.index"],
    "nervcodec.": ["nervcodec.cli", "click", "rich", "nervcodec.index", "nervcodec.serve"],
}
# The only importers of a library.
ONLY_IMPORTER = {
    "ray": "nervcodec.jobs.ray_cluster",
    "sqlite3": "nervcodec.index",
    "starlette": "nervcodec.serve",
    "uvicorn": "nervcodec.serve",
}
USES_AV = {f"nervcodec.base.{name}" for name in ("codec", "copy")}  # besides nervcodec.media
EXEMPT = {"nervcodec.cli", "nervcodec.__main__"}  # from the last row
BUILDS_ON = {"nervcodec.serve": "nervcodec.index"}  # an optional package that may import another


def modules() -> dict[str, Path]:
    """Source files by module name."""
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


FILES = modules()


def imports(path: Path) -> set[str]:
    """Modules and names that a file imports at run time."""
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


def is_inside(name: str, package: str) -> bool:
    """Whether a module is a package or inside it; a trailing dot leaves out the package itself."""
    return name.startswith(package) if package.endswith(".") else name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_only_what_they_may(package):
    refused = [rule for rule in FORBIDDEN[package] if not rule.startswith("but:")]
    allowed = [rule.removeprefix("but:") for rule in FORBIDDEN[package] if rule.startswith("but:")]
    members = [name for name in FILES if is_inside(name, package)]
    assert members
    for name in members:
        if package == "nervcodec." and any(is_inside(name, exempt) for exempt in EXEMPT):
            continue
        builds_on = [other for user, other in BUILDS_ON.items() if is_inside(name, user)]
        for target in imports(FILES[name]):
            if any(is_inside(target, other) for other in builds_on):
                continue
            if any(is_inside(target, rule) and not is_inside(name, rule) for rule in refused):
                assert any(is_inside(target, rule) for rule in allowed), f"{name} imports {target}"


def test_pyav_is_imported_in_media_and_base_only():
    users = {name for name, path in FILES.items() if any(is_inside(target, "av") for target in imports(path))}
    assert users
    assert all(is_inside(name, "nervcodec.media") or name in USES_AV for name in users)


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_optional_libraries_have_one_importer(library):
    users = {name for name, path in FILES.items() if any(is_inside(target, library) for target in imports(path))}
    assert users
    assert all(is_inside(name, ONLY_IMPORTER[library]) for name in users)


def test_there_are_no_import_cycles():
    """Imports inside functions count as well."""
    graph = {name: {t for t in imports(path) if t in FILES and t != name} for name, path in FILES.items()}
    for targets in graph.values():
        targets.discard("nervcodec")  # the package itself, which resolves its names lazily
    done, active = set(), []

    def visit(name: str) -> None:
        assert name not in active, " -> ".join([*active[active.index(name) :], name])
        if name in done:
            return
        active.append(name)
        for target in sorted(graph[name]):
            visit(target)
        active.pop()
        done.add(name)

    for name in sorted(graph):
        if name != "nervcodec":
            visit(name)
