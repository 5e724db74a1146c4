"""Which ftexp this is, and on what it stands."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ftexp import __version__

# What a run's result may depend on, beside ftexp.
PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "mlflow-skinny", "optuna")


def version_line() -> str:
    """For ``--version``; none of the packages is imported."""
    installed = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    return f"ftexp {__version__} (Python {platform.python_version()}, {installed})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
