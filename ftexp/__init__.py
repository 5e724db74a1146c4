"""Fine-tuning of pretrained image classifiers, configured with Hydra.

``ftexp.load("outputs/…")`` gives a ``Classifier``. Names are imported when they are first used: torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftexp.inference.classifier import Classifier as Classifier
    from ftexp.inference.load import load as load

__version__ = "0.1.0"

# Public name -> the module that has it.
_EXPORTS = {
    "Classifier": "ftexp.inference.classifier",
    "load": "ftexp.inference.load",
}
__all__ = ["Classifier", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ftexp' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
