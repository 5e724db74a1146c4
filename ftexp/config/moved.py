"""Settings that had another name in an earlier version: what they are now, in commands, in files and in run folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ftexp.config.loss import LOSSES
from ftexp.errors import ConfigError

# The earlier name -> the name now. A loss had its settings among those of the loop.
MOVED = {
    "train.loss": "loss",
    "train.label_smoothing": "loss.label_smoothing",
    "train.focal_gamma": "loss.gamma",
    "train.class_weights": "loss.class_weights",
}
_DEFAULT_LOSS = "cross_entropy"


def moved_to(key: str, value: str = "VALUE") -> str | None:
    """The message about a setting that has another name now; None: it has not.

    Args:
        key: the full name, with or without ``+`` in front.
        value: as given, to be shown with the name of now.
    """
    now = MOVED.get(key.lstrip("+~"))
    if now is None:
        return None
    having = _losses_with(now.partition(".")[2])
    where = f" It belongs to {' or '.join(f'loss={name}' for name in having)}." if having else ""
    return f"{key.lstrip('+~')} is called {now} now: {now}={value}.{where}"


def refuse_moved(keys: Iterable[str]) -> None:
    """Raise a ConfigError for the first of these settings that has another name now."""
    for key in keys:
        if message := moved_to(key):
            raise ConfigError(message)


def renamed_overrides(overrides: Sequence[str]) -> list[str]:
    """Overrides of a run that an earlier version began, with the names of now.

    What had to be given beside a loss that makes no use of it, such as ``train.label_smoothing=0``, is left out.
    """
    given = [override.partition("=") for override in overrides]
    chosen = [value.strip("'\"") for key, _, value in given if MOVED.get(key.lstrip("+"), key) == "loss"]
    kind = LOSSES.get(chosen[-1] if chosen else _DEFAULT_LOSS)
    known = {"loss", *(f"loss.{field.name}" for field in fields(kind or LOSSES[_DEFAULT_LOSS]))}
    result = []
    for override, (key, sign, value) in zip(overrides, given, strict=True):
        now = MOVED.get(key.lstrip("+"))
        if now is None:
            result.append(override)
        elif now in known and value != "null":
            result.append(f"{now}{sign}{value}")
    return result


def renamed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run as plain data, those of an earlier version with the names of now."""
    train = dict(config.get("train", {}))
    if "loss" in config or "loss" not in train:
        return dict(config)
    before = {MOVED[f"train.{key}"]: train.pop(key) for key in list(train) if f"train.{key}" in MOVED}
    name = before["loss"]
    names = [field.name for field in fields(LOSSES[name]) if f"loss.{field.name}" in before]
    loss = {"name": name, **{key: before[f"loss.{key}"] for key in names}}
    return {**config, "train": train, "loss": loss}


def _losses_with(key: str) -> list[str]:
    having = [name for name, kind in LOSSES.items() if key in (field.name for field in fields(kind))]
    return having if len(having) < len(LOSSES) else []
