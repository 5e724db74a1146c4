"""What torchvision and timm need of torch._dynamo is imported when it is used; here by packages that stand for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from ftexp.machine import deferred_dynamo
from ftexp.machine.deferred_dynamo import dynamo_imported_when_used


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``compiler`` stands for torch._dynamo."""
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "__init__.py").write_text("from . import utils\ndisable = 'the true one'\n")
    utils = "def is_compile_supported(device): return device + '!'\nother = 3\n"
    (tmp_path / "compiler" / "utils.py").write_text(utils)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in {"IMPORTERS": ("importer",), "DYNAMO": "compiler", "UTILS": "compiler.utils"}.items():
        monkeypatch.setattr(deferred_dynamo, name, value)
    yield
    for name in ("importer", "compiler", "compiler.utils"):
        sys.modules.pop(name, None)


def imported(folder: Path, source: str) -> object:
    (folder / "importer.py").write_text(source)
    with dynamo_imported_when_used():
        return import_module("importer")


def test_a_function_imports_its_module_when_it_is_called(tmp_path: Path) -> None:
    importer = imported(tmp_path, "from compiler.utils import is_compile_supported")
    assert not {"compiler", "compiler.utils"} & set(sys.modules)
    assert importer.is_compile_supported("cpu") == "cpu!"  # type: ignore[attr-defined]
    assert "compiler.utils" in sys.modules


def test_a_decorated_function_does_what_it_did(tmp_path: Path) -> None:
    source = "import compiler\n@compiler.disable\ndef add(a, b=1):\n    'Adds.'\n    return a + b"
    add = imported(tmp_path, source).add  # type: ignore[attr-defined]
    assert "compiler" not in sys.modules
    assert (add(2), add(2, b=3), add.__doc__) == (3, 5, "Adds.")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("from compiler.utils import other as value", 3),
        ("import compiler.utils\nvalue = compiler.utils.other", 3),
        ("import compiler\nfrom compiler.utils import other\nvalue = compiler.disable if False else other", 3),
    ],
)
def test_any_other_name_imports_the_true_module_at_once(tmp_path: Path, source: str, value: object) -> None:
    assert imported(tmp_path, source).value == value  # type: ignore[attr-defined]
    assert sys.modules["compiler.utils"].__file__


def test_what_is_imported_already_is_used(tmp_path: Path) -> None:
    import_module("compiler")
    assert imported(tmp_path, "from compiler import disable").disable == "the true one"  # type: ignore[attr-defined]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        imported(tmp_path, "from compiler.utils import is_compile_supported\n1 / 0")
    assert not {"compiler", "compiler.utils"} & set(sys.modules)
    assert not any(isinstance(finder, deferred_dynamo._Finder) for finder in sys.meta_path)
