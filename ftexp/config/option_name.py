"""The name of a group's option, which only choosing the option may change."""

from __future__ import annotations

from collections.abc import Mapping

from ftexp.errors import ConfigError


def check_name(group: str, name: str, kind: type, options: Mapping[str, type]) -> None:
    """Refuse a name that was set as if it were a setting: the other settings would stay those of another option.

    Args:
        group: such as ``optimizer``.
        name: as given; ``kind``: the dataclass that it was given to.
        options: the group's names and dataclasses.

    Raises:
        ConfigError: when the name is not that of the dataclass.
    """
    if options.get(name) is not kind:
        allowed = ", ".join(options)
        raise ConfigError(f"{group}.name={name} chooses nothing. Choose with {group}=NAME, one of {allowed}.")
