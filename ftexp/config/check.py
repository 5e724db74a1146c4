"""Refusing a value with one clear message."""

from __future__ import annotations

from ftexp.errors import ConfigError


def check(holds: bool, key: str, given: object, allowed: str) -> None:
    """Raise a ConfigError unless the condition holds.

    Args:
        key: the full name of the setting.
        allowed: what the value must be, to follow the words "it must be".
    """
    if not holds:
        raise ConfigError(f"{key}={given} is not allowed: it must be {allowed}.")


def refuse_empty(key: str, path: str | None) -> None:
    """Raise a ConfigError for an empty path, which would mean the working folder: so ends ``data.root=$UNSET``."""
    if path is not None and not path.strip():
        raise ConfigError(f"{key} is empty. Give a folder or file; the working folder is {key}=.")
