"""Checks that the name of an option was changed only by choosing another option."""

from __future__ import annotations

from collections.abc import Mapping

from ftexp.errors import ConfigError


def check_name(group: str, name: str, kind: type, options: Mapping[str, type]) -> None:
    """Refuse a name that was set like other settings, because the rest would still be the settings of another option.

    Args:
        group: the config group, such as ``optimizer``.
        name: the given name.
        kind: the dataclass that it was given to.
        options: the names of the options in the group, with their dataclasses.

    Raises:
        ConfigError: when the name is not that of the dataclass.
    """
    if options.get(name) is not kind:
        allowed = ", ".join(options)
        raise ConfigError(f"{group}.name={name} does not choose the {group}. Use {group}=NAME with one of {allowed}.")
