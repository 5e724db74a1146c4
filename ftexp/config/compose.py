"""Registers the schema with Hydra, and converts the configuration that Hydra composes into checked objects."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from ftexp.config.known_keys import PATHS, unknown_setting
from ftexp.config.root import SCHEMA, Config
from ftexp.config.sweep import SearchSweeperConfig
from ftexp.config.uri import hide_credentials
from ftexp.errors import ConfigError

T = TypeVar("T")

# For these settings infinity is allowed and means that there is no limit.
_LIMITS = (
    "data.max_file_mib",
    "data.max_megapixels",
    "runtime.cache_gib",
    "train.clip_norm",
    "train.save_every_minutes",
)
_REFERENCES = " ${group.key} refers to another setting, ${oc.env:NAME} to an environment variable."


def register_schema() -> None:
    """Register the schema with Hydra, before composing; further calls do nothing."""
    store = ConfigStore.instance()
    if "_config.yaml" in store.repo:
        return
    store.store(name="_config", node=Config, replace=True)
    store.store(group="hydra/sweeper", name="_search", node=SearchSweeperConfig, replace=True)
    for group, nodes in SCHEMA.items():
        for name, kind in nodes.items():
            store.store(group=group, name=name, node=kind, replace=True)
            node = store.repo[group][f"{name}.yaml"].node
            for key in node:
                if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
                    continue
                if isinstance(node[key], DictConfig) and not is_dataclass(OmegaConf.get_type(node, key)):
                    OmegaConf.set_struct(node[key], False)  # a mapping with keys that the user chooses: block_lrs


def parse(composed: DictConfig) -> Config:
    """Convert a composed configuration into checked dataclasses, and expand ``~`` in every path.

    Raises:
        ConfigError: for a key that no dataclass has (added with ``+``), a value that is missing or refers to a
            setting that does not exist, or a value that the rules of a group refuse.
    """
    _refuse_strays(composed, prefix="")
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0].rstrip('.')}.{_REFERENCES}") from error
    assert isinstance(config, Config)
    _refuse_infinities(asdict(config), prefix="")
    for group, _, key in (path.partition(".") for path in PATHS):
        settings = getattr(config, group)
        if isinstance(path := getattr(settings, key, None), str):
            config = replace(config, **{group: replace(settings, **{key: os.path.expanduser(path)})})
    return config


def _refuse_infinities(value: Any, prefix: str) -> None:
    """Refuse infinite numbers: an infinite learning rate would pass "above 0" and make every weight infinite."""
    if isinstance(value, float) and not math.isfinite(value) and prefix not in _LIMITS:
        raise ConfigError(f"{prefix}={value} is not allowed: it must be a finite number.")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_infinities(item, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _refuse_infinities(item, f"{prefix}[{number}]")


def with_changes(base: T, changes: Mapping[str, Any], key: str) -> T:
    """Change some settings of a group, checked like those of the command line.

    Args:
        base: the settings of the group.
        changes: key -> new value.
        key: the full name of the setting that holds the changes, for messages.

    Raises:
        ConfigError: for a key that the group does not have, or a value it does not allow.
    """
    try:
        changed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), dict(changes)))
    except ConfigKeyError as error:
        allowed = [f.name for f in fields(cast(Any, base))]
        raise ConfigError(unknown_setting(f"{key}.{error.key}", allowed)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {str(error).splitlines()[0]}.") from error
    return cast(T, changed)


def as_data(config: Config) -> dict[str, Any]:
    """Convert a run's configuration to plain data without passwords, for files and stores that others can read."""
    data = asdict(config)
    # These choose which runs there are, or are for other commands: they are not settings of this run.
    del data["sweep"], data["resume"], data["probe"]
    del data["recipe"]  # what it decided stands in the settings, or in run.json
    data["tracking"]["uri"] = hide_credentials(config.tracking.uri) if config.tracking.uri else None
    return {group: _without_infinities(values) for group, values in data.items()}


def _without_infinities(value: Any) -> Any:
    """Replace infinite numbers, which JSON does not have, by text: ``data.max_file_mib=inf`` becomes "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return value


def _refuse_strays(node: DictConfig | ListConfig, prefix: str) -> None:
    """Refuse keys that ``+key=value`` added, which Hydra allows, by comparing each node with its dataclass."""
    if isinstance(node, ListConfig):
        names: dict[Any, str] = {i: f"{prefix}[{i}]" for i in range(len(node))}
    else:
        kind = OmegaConf.get_type(node)
        if is_dataclass(kind):
            allowed = [f.name for f in fields(kind)]
            for key in map(str, node):
                if key not in allowed:
                    raise ConfigError(unknown_setting(f"{prefix}.{key}" if prefix else key, allowed))
        names = {key: f"{prefix}.{key!s}" if prefix else str(key) for key in node}
    for key, name in names.items():
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name} has no value. Give one, for example {name}=VALUE on the command line.")
        if not OmegaConf.is_interpolation(node, key) and isinstance(node[key], (DictConfig, ListConfig)):
            _refuse_strays(node[key], name)
