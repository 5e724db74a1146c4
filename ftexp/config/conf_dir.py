"""Where the values of the settings are: the folder ``conf`` with a YAML file for every option."""

from __future__ import annotations

from pathlib import Path


def conf_dir() -> Path:
    """The folder of the config groups: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
