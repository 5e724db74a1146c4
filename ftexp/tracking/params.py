"""A configuration as flat names and values for the tracking store."""

from __future__ import annotations

from typing import Any

from ftexp.config import Config, as_data


def flatten(config: Config) -> dict[str, object]:
    """Every setting under its full key: ``optimizer.head_lr``, ``stage.phases.0.epochs``."""
    return flatten_data(as_data(config))


def flatten_data(data: dict[str, Any]) -> dict[str, object]:
    """Like ``flatten``, for a configuration as plain data."""
    return dict(_leaves("", data)) if data else {}


def _leaves(prefix: str, value: Any) -> list[tuple[str, object]]:
    if isinstance(value, dict) and value:
        return [leaf for key, child in value.items() for leaf in _leaves(f"{prefix}.{key}" if prefix else key, child)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [leaf for i, child in enumerate(value) for leaf in _leaves(f"{prefix}.{i}", child)]
    return [(prefix, value)]
