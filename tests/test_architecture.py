"""What ARCHITECTURE.md says of folders and files holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = REPOSITORY / "ftexp"
TEXT = (REPOSITORY / "ARCHITECTURE.md").read_text()
# Folder -> the folders that it may import.
RULES = {
    folder: set(re.findall(r"`([a-z/]+)`", imports))
    for folder, imports in re.findall(r"^\| `([a-z/]+)` \|[^|]*\|([^|]*)\|$", TEXT, re.MULTILINE)
}


def folder_of(module: str) -> str | None:
    """The folder of the table that a module ``ftexp.a.b.c`` is in; None for the modules of ``ftexp/`` itself."""
    parts = module.split(".")[1:]
    names = ["/".join(parts[:length]) for length in (2, 1) if (SOURCES / "/".join(parts[:length])).is_dir()]
    return next((name for name in names if name in RULES), None)


def module_of(file: Path) -> str:
    """The name under which a file is imported; of ``__init__.py``, that of its folder."""
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(file: Path) -> Iterator[str]:
    """All modules that a file imports, also in functions and for the type checker alone."""
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_folder_has_a_row() -> None:
    with_modules = {
        path.parent.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if path.name != "__init__.py" and path.parent != SOURCES
    }
    inside = {folder for folder in with_modules if any(folder.startswith(f"{other}/") for other in RULES)}
    assert with_modules - inside | {f for f in inside if f in RULES} == set(RULES)


@pytest.mark.parametrize("folder", RULES)
def test_a_folder_imports_what_its_row_says(folder: str) -> None:
    files = [file for file in (SOURCES / folder).rglob("*.py") if file.name != "__main__.py"]
    found = {
        other: str(file.relative_to(SOURCES))
        for file in files
        if folder_of(module_of(file)) == folder
        for name in imported(file)
        if name.startswith("ftexp.") and (other := folder_of(name)) not in (None, folder)
    }
    assert {other: file for other, file in found.items() if other not in RULES[folder]} == {}
    assert RULES[folder] - set(found) == set(), "the row names folders that nothing in it imports"


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = {module_of(file): file for file in SOURCES.rglob("*.py")}
    imports = {module: (set(files) - {module}) & set(imported(file)) for module, file in files.items()}
    TopologicalSorter(imports).prepare()  # its error names the circle


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_are_named_exist(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|yaml))`", text)) - {"utils.py"}  # which we do without
    places = (REPOSITORY, SOURCES, *(path for path in SOURCES.rglob("*") if path.is_dir()))
    assert [name for name in sorted(named) if not any((place / name).exists() for place in places)] == []


def test_functions_and_classes_that_are_named_exist() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    named = set(re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)(?:\(\))?`", TEXT)) - set(RULES)
    words = {name.rpartition(".")[2] for name in named if not name.endswith(".py")}
    missing = [w for w in sorted(words) if not re.search(rf"\b(def|class) {w}\b|^\s*{w}\b.*[:=]", code, re.MULTILINE)]
    assert missing == []


def test_every_test_file_can_run_alone() -> None:
    """Test files share code by helper modules beside them or in ``tests/``, which pytest puts on the path."""
    tests = REPOSITORY / "tests"
    places = {path.stem: path.parent for path in tests.rglob("*.py")}
    shared = {
        (str(file.relative_to(tests)), name)
        for file in tests.rglob("*.py")
        for name in imported(file)
        if name in places and (name.startswith("test_") or places[name] not in (tests, file.parent))
    }
    assert shared == set()
