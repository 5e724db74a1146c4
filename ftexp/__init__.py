"""Fine-tuning of pretrained image classifiers, configured with Hydra.

``ftexp.fine_tune([...])`` runs an experiment, ``ftexp.load("outputs/...")`` gives the ``Classifier`` that a run yields.
Names are imported when they are first used: torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftexp.audit.find_leaks import find_leaks as find_leaks
    from ftexp.audit.findings import Finding as Finding
    from ftexp.config import Config as Config
    from ftexp.errors import UserError as UserError
    from ftexp.fine_tuning import compose as compose
    from ftexp.fine_tuning import fine_tune as fine_tune
    from ftexp.inference.classifier import Classifier as Classifier
    from ftexp.inference.load import load as load
    from ftexp.inference.predictions import Prediction as Prediction
    from ftexp.inference.predictions import Predictions as Predictions
    from ftexp.own_network import param_groups as param_groups
    from ftexp.own_network import split_network as split_network
    from ftexp.run_result import RunResult as RunResult

__version__ = "0.1.0"

# Public name -> the module that has it.
_EXPORTS = {
    "Classifier": "ftexp.inference.classifier",
    "Config": "ftexp.config",
    "Finding": "ftexp.audit.findings",
    "Prediction": "ftexp.inference.predictions",
    "Predictions": "ftexp.inference.predictions",
    "RunResult": "ftexp.run_result",
    "UserError": "ftexp.errors",
    "compose": "ftexp.fine_tuning",
    "find_leaks": "ftexp.audit.find_leaks",
    "fine_tune": "ftexp.fine_tuning",
    "load": "ftexp.inference.load",
    "param_groups": "ftexp.own_network",
    "split_network": "ftexp.own_network",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ftexp' has no attribute {name!r}")
    from ftexp.machine.deferred_dynamo import dynamo_imported_when_used

    with dynamo_imported_when_used():
        return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
