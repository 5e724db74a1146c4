"""The configuration files as they are when a sweep begins: Hydra would read them anew for every trial."""

from __future__ import annotations

from typing import Any

from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from yaml import YAMLError


def freeze_config(loader: Any) -> None:
    """Read all of them now, so that whoever edits one meanwhile does not change the trials to come.

    Args:
        loader: Hydra's, which composes the configuration of every trial.
    """
    repository = CachingConfigRepository(loader.repository)
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
    loader.repository = repository
