"""Reads the configuration files once, when a sweep begins; Hydra would read them again for every trial."""

from __future__ import annotations

from typing import Any

from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from yaml import YAMLError

from ftexp.hydra_internals import caching_repository


def freeze_config(loader: Any) -> None:
    """Read all configuration files now, so that editing one during the sweep does not change later trials.

    Args:
        loader: Hydra's ``ConfigLoader``, which composes the configuration of every trial.
    """
    repository = caching_repository(loader)
    groups = [""]
    while groups:
        group = groups.pop()
        path = f"{group}/" if group else ""
        groups += [path + name for name in repository.get_group_options(group, ObjectType.GROUP)]
        for name in repository.get_group_options(group, ObjectType.CONFIG):
            try:
                repository.load_config(path + name)
            except (HydraException, YAMLError, OSError, ValueError):
                continue  # a file with mistakes is refused by Hydra where it is used, with its name
