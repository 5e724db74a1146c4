"""Refuses a value with one clear message."""

from __future__ import annotations

from ftexp.errors import ConfigError


def check(holds: bool, key: str, given: object, allowed: str) -> None:
    """Raise a ConfigError unless the condition holds.

    Args:
        holds: the condition.
        key: the full name of the setting.
        given: the value, for the message.
        allowed: what the value must be; it follows the words "it must be" in the message.
    """
    if not holds:
        raise ConfigError(f"{key}={given} is not allowed: it must be {allowed}.")


def refuse_empty(key: str, path: str | None) -> None:
    """Raise a ConfigError for an empty path, as of ``data.root=$UNSET``, which would mean the working folder."""
    if path is not None and not path.strip():
        raise ConfigError(f"{key} is empty. Give a file or folder; for the working folder write {key}=. with a dot.")
