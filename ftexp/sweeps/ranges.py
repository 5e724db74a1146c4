"""Converts ranges in Hydra's notation to Optuna's distributions, with messages for what cannot be searched."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ftexp.errors import ConfigError, nearest
from ftexp.hydra_internals import distribution_of, with_value

# Function from a key to the names of its options; empty if the key is not a configuration group.
Options = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Range:
    """The range of a setting.

    Attributes:
        distribution: the range as Optuna's distribution.
        text: the range as it was written; for ``glob``, the options that match.
        listed: whether it is a plain list, whose values a grid can run through.
    """

    distribution: BaseDistribution
    text: str
    listed: bool


def parse_range(key: str, text: str, options: Options) -> Range:
    """Parse a range in a preset, ``sweep.space``.

    Args:
        key: the setting.
        text: the range.
        options: returns the options of a configuration group.

    Raises:
        ConfigError: if the text is not a range.
    """
    try:
        (override,) = OverridesParser.create().parse_overrides([f"{key}={text}"])
    except HydraException as error:
        reason = next(line for line in str(error).splitlines() if not line.startswith("Error"))
        raise ConfigError(f"sweep.space.{key}={text} cannot be read: {reason}") from error
    if not override.is_sweep_override():
        raise ConfigError(f"sweep.space.{key}={text} is not a range; use interval(a, b), choice(a, b) or range(a, b).")
    return read_range(override, options)


def read_range(override: Override, options: Options) -> Range:
    """Read the range in an override of the command line.

    Args:
        override: the override.
        options: returns the options of a configuration group.

    Raises:
        ConfigError: if it cannot be searched.
    """
    line = str(override.input_line)
    value: object = override.value()
    if override.is_delete():
        raise ConfigError(f"{line}: ~ deletes a setting, which then has no range. Remove the ~, or the range.")
    known = [name for name in options(override.key_or_group) if not name.startswith("_")]
    _check_tags(line, value)
    if isinstance(value, Glob):
        names = _matching(line, override.key_or_group, value, known)
        return Range(CategoricalDistribution(names), ",".join(names), listed=True)
    if isinstance(value, IntervalSweep):
        _check_bounds(line, value)
    if isinstance(value, ChoiceSweep) or (isinstance(value, RangeSweep) and value.shuffle):
        values = _values(override, value)
        distribution: BaseDistribution = CategoricalDistribution(
            [str(item).strip("'\"") for item in values] if known else values
        )
    else:
        distribution = _distribution(override)
    if known:
        _check_options(line, override.key_or_group, distribution, known)
    listed = isinstance(value, ChoiceSweep) and value.simple_form
    return Range(distribution, line.partition("=")[2], listed)


def check_whole_numbers(key: str, distribution: BaseDistribution, text: str, configured: object) -> None:
    """Refuse fractions for a setting that takes whole numbers.

    Args:
        key: the setting.
        distribution: its range.
        text: the range as it was written.
        configured: its value in the configuration.

    Raises:
        ConfigError: if the configured value is a whole number and the range has fractions.
    """
    if isinstance(configured, int) and not isinstance(configured, bool) and isinstance(distribution, FloatDistribution):
        raise ConfigError(f"{key}={text}: {key} takes whole numbers. Write int(interval(a, b)), or range(a, b).")


def _matching(line: str, group: str, glob: Glob, known: Sequence[str]) -> list[str]:
    if not known:
        raise ConfigError(f"{line}: glob matches options of a group, and {group} has no options. List the values.")
    names = glob.filter(list(known))
    if not names:
        raise ConfigError(f"{line}: no option of {group} matches. The options are {', '.join(known)}.")
    return names


def _values(override: Override, value: ChoiceSweep | RangeSweep) -> list[Any]:
    """Each value once. A shuffle gives the same order in every call, so that a search can be continued."""
    if isinstance(value, ChoiceSweep):
        for item in value.list:
            if isinstance(item, (Sweep, Glob)):
                raise ConfigError(
                    f"{override.input_line}: a list has plain values, and one of these is a range. Give the setting "
                    "one range, or a list of values."
                )
    ordered = with_value(override, replace(value, shuffle=False))
    try:
        found = list(ordered.sweep_iterator(transformer=Transformer.encode))
    except (HydraException, ValueError) as error:
        raise ConfigError(f"{override.input_line}: {error}") from error
    values = list({(type(item), item): item for item in found}.values())
    if value.shuffle:
        random.Random(str(override.input_line)).shuffle(values)
    if not values:
        raise ConfigError(f"{override.input_line}: the list has no values.")
    return values


def _distribution(override: Override) -> BaseDistribution:
    try:
        return distribution_of(override)
    except (ValueError, HydraException) as error:
        raise ConfigError(f"{override.input_line}: {error}") from error


def _check_tags(line: str, value: object) -> None:
    """Refuse tags other than ``log`` of an interval: Hydra allows any, but they would have no effect here."""
    tags = value.tags if isinstance(value, Sweep) else set()
    if "log" in tags and not isinstance(value, IntervalSweep):
        raise ConfigError(f"{line}: the tag log is for intervals: tag(log, interval(a, b)) or tag(log, int(…)).")
    if isinstance(value, IntervalSweep) and tags - {"log"}:
        raise ConfigError(f"{line}: there is no tag {', '.join(sorted(tags - {'log'}))}. The only tag is log.")


def _check_bounds(line: str, value: IntervalSweep) -> None:
    assert value.start is not None
    assert value.end is not None
    if not (math.isfinite(value.start) and math.isfinite(value.end)):
        raise ConfigError(f"{line}: both ends of an interval must be finite numbers.")
    if value.start > value.end:
        raise ConfigError(f"{line}: the lower end has to come first: interval({value.end:g}, {value.start:g}).")
    if "log" in value.tags and value.start <= 0:
        raise ConfigError(f"{line}: with the tag log the lower end must be above 0.")


def _check_options(line: str, group: str, distribution: BaseDistribution, known: Sequence[str]) -> None:
    if not isinstance(distribution, CategoricalDistribution):
        raise ConfigError(f"{line}: {group} is a choice of {', '.join(known)}, not a number. Write choice(a, b).")
    for choice in distribution.choices:
        if choice not in (*known, "null"):
            raise ConfigError(
                f"{line}: {group} has no option '{choice}'.{nearest(str(choice), known)} Allowed: {', '.join(known)}."
            )
