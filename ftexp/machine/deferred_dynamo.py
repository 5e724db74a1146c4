"""Defers the import of torch._dynamo, which takes a second, from imports of torchvision and timm to its first use.

Three of their modules need it where they are imported: one for a function that only ``roi_align`` calls, the others for
a decorator that keeps ``torch.compile`` out of some functions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

IMPORTERS = ("torchvision.ops.roi_align", "torchvision.tv_tensors", "timm.models.naflexvit")
DYNAMO, UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def dynamo_imported_when_used() -> Iterator[None]:
    """Within the ``with``, imports of torchvision and timm do not import torch._dynamo; its first use does."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the importers as Python does, and gives them a loader of their own."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in IMPORTERS or DYNAMO in sys.modules:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Executes a module that finds stand-ins for torch._dynamo."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules.update({DYNAMO: _StandIn(DYNAMO, disable=_disable), UTILS: _StandIn(UTILS, **_later(UTILS))})
        try:
            super().exec_module(module)
        finally:
            _remove_stand_ins()


class _StandIn(ModuleType):
    """Has a few functions, which import the true module when they are called; any other name imports it at once."""

    def __init__(self, name: str, **functions: Callable[..., Any]) -> None:
        super().__init__(name)
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (self.__name__, name) != (DYNAMO, "__path__"):  # asked for before a submodule
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(import_module(self.__name__), name)


def _disable(function: Callable[..., Any], recursive: bool = True, **_: object) -> Callable[..., Any]:
    """``torch._dynamo.disable``, which torch itself defers in this way."""
    import torch

    deferred: Callable[..., Any] = torch._disable_dynamo(function, recursive)  # type: ignore[attr-defined]
    return deferred


def _later(module: str, name: str = "is_compile_supported") -> dict[str, Callable[..., Any]]:
    """A function of a module that is imported when the function is called."""
    return {name: lambda *arguments: getattr(import_module(module), name)(*arguments)}


def _remove_stand_ins() -> None:
    for name in (DYNAMO, UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
