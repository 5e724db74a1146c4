"""From a range in Hydra's notation to one of Optuna's distributions; what cannot be searched is said."""

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

# Names of the options of a configuration group; empty for a key that is none.
Options = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Range:
    """What a setting may be.

    Attributes:
        text: as it was written; of ``glob`` the options that it stands for.
        listed: whether it is a plain list, of which a grid takes every value.
    """

    distribution: BaseDistribution
    text: str
    listed: bool


def parse_range(key: str, text: str, options: Options) -> Range:
    """The range of a preset.

    Raises:
        ConfigError: if the text is no range.
    """
    try:
        (override,) = OverridesParser.create().parse_overrides([f"{key}={text}"])
    except HydraException as error:
        reason = next(line for line in str(error).splitlines() if not line.startswith("Error"))
        raise ConfigError(f"sweep.space.{key}={text} cannot be read: {reason}") from error
    if not override.is_sweep_override():
        raise ConfigError(f"sweep.space.{key}={text} is no range; write interval(a, b), choice(a, b) or range(a, b).")
    return read_range(override, options)


def read_range(override: Override, options: Options) -> Range:
    """The range of an override.

    Raises:
        ConfigError: for what cannot be searched.
    """
    line = str(override.input_line)
    value: object = override.value()
    if override.is_delete():
        raise ConfigError(f"{line}: a setting that is taken out has no range. Leave out the ~, or the range.")
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
        configured: its value in the configuration.
    """
    if isinstance(configured, int) and not isinstance(configured, bool) and isinstance(distribution, FloatDistribution):
        raise ConfigError(f"{key}={text}: it takes whole numbers. Write int(interval(a, b)), or range(a, b).")


def _matching(line: str, group: str, glob: Glob, known: Sequence[str]) -> list[str]:
    if not known:
        raise ConfigError(f"{line}: glob stands for the options of a group, and {group} has none. List the values.")
    names = glob.filter(list(known))
    if not names:
        raise ConfigError(f"{line}: none of the options of {group} matches. They are {', '.join(known)}.")
    return names


def _values(override: Override, value: ChoiceSweep | RangeSweep) -> list[Any]:
    """Each value once; shuffled, where that is asked for, alike in every call, so that a search can go on."""
    if isinstance(value, ChoiceSweep):
        for item in value.list:
            if isinstance(item, (Sweep, Glob)):
                raise ConfigError(
                    f"{override.input_line}: a list holds plain values, and one of these is a range itself. Give the "
                    "setting one range, or a list of values."
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
        raise ConfigError(f"{override.input_line}: there is no value in it.")
    return values


def _distribution(override: Override) -> BaseDistribution:
    try:
        return distribution_of(override)
    except (ValueError, HydraException) as error:
        raise ConfigError(f"{override.input_line}: {error}") from error


def _check_tags(line: str, value: object) -> None:
    """Of Hydra's free tags only ``log`` has a meaning here, for intervals; others are labels, but may be misspelt."""
    tags = value.tags if isinstance(value, Sweep) else set()
    if "log" in tags and not isinstance(value, IntervalSweep):
        raise ConfigError(f"{line}: the tag log is for intervals: tag(log, interval(a, b)) or tag(log, int(…)).")
    if isinstance(value, IntervalSweep) and tags - {"log"}:
        raise ConfigError(f"{line}: there is no tag {', '.join(sorted(tags - {'log'}))}. An interval can have log.")


def _check_bounds(line: str, value: IntervalSweep) -> None:
    assert value.start is not None
    assert value.end is not None
    if not (math.isfinite(value.start) and math.isfinite(value.end)):
        raise ConfigError(f"{line}: both ends of an interval must be finite numbers.")
    if value.start > value.end:
        raise ConfigError(f"{line}: the lower end comes first: interval({value.end:g}, {value.start:g}).")
    if "log" in value.tags and value.start <= 0:
        raise ConfigError(f"{line}: with the tag log the lower end must be above 0.")


def _check_options(line: str, group: str, distribution: BaseDistribution, known: Sequence[str]) -> None:
    if not isinstance(distribution, CategoricalDistribution):
        raise ConfigError(f"{line}: {group} is a choice of {', '.join(known)}, not a number. Write choice(a, b).")
    for choice in distribution.choices:
        if choice not in (*known, "null"):
            raise ConfigError(
                f"{line}: {group} has no option '{choice}'.{nearest(str(choice), known)} There are {', '.join(known)}."
            )
