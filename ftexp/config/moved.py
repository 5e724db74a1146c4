"""Renamed settings: their current names, for commands, config files and the folders of earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from ftexp.config.loss import LOSSES
from ftexp.errors import ConfigError

# Earlier name -> current name. The settings of the loss were in the group "train".
MOVED = {
    "train.loss": "loss",
    "train.label_smoothing": "loss.label_smoothing",
    "train.focal_gamma": "loss.gamma",
    "train.class_weights": "loss.class_weights",
}
_DEFAULT_LOSS = "cross_entropy"


def moved_to(key: str, value: str = "VALUE") -> str | None:
    """The message for a renamed setting; None if the setting was not renamed.

    Args:
        key: the full name, with or without a leading ``+``.
        value: the given value, which the message shows with the current name.
    """
    now = MOVED.get(key.lstrip("+~"))
    if now is None:
        return None
    having = _losses_with(now.partition(".")[2])
    where = f" It belongs to {' or '.join(f'loss={name}' for name in having)}." if having else ""
    return f"{key.lstrip('+~')} is called {now} now: {now}={value}.{where}"


def refuse_moved(keys: Iterable[str]) -> None:
    """Raise a ConfigError for the first of these settings that was renamed."""
    for key in keys:
        if message := moved_to(key):
            raise ConfigError(message)


def renamed_overrides(overrides: Sequence[str]) -> list[str]:
    """Replace earlier names in the overrides of a run by the current names.

    Settings that the chosen loss no longer has, such as ``train.label_smoothing=0`` with focal loss, are left out.
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
    """Replace earlier names in the settings of a run, as plain data, by the current names."""
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
