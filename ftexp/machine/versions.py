"""The versions of ftexp, Python and the packages that ftexp depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ftexp import __version__

# The packages besides ftexp that the result of a run may depend on.
PACKAGES = ("torch", "torchvision", "timm", "hydra-core", "mlflow-skinny", "optuna")


def version_line() -> str:
    """The output of ``--version``; it does not import any of the packages."""
    installed = ", ".join(f"{package} {_version(package)}" for package in PACKAGES)
    return f"ftexp {__version__} (Python {platform.python_version()}, {installed})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
