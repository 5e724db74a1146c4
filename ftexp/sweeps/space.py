"""The space of a search: the ranges of a preset and of the command line, as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna import Study
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import Trial

from ftexp.config.moved import refuse_moved
from ftexp.errors import ConfigError
from ftexp.hydra_internals import grid_choices
from ftexp.sweeps.ranges import Options, parse_range, read_range

EACH_BLOCK = "optimizer.block_lrs.*"


@dataclass(frozen=True, slots=True)
class Space:
    """The searched settings with their ranges, and the fixed settings.

    Attributes:
        ranges: distribution of each searched setting, in the order in which values are drawn.
        texts: range of each searched setting as it was written.
        fixed: the other overrides of the command line as they were written.
        idle: for ``group=option``, the settings that have no effect with it.
        listed: whether all ranges are plain lists from the command line; then every combination is run.
    """

    ranges: dict[str, BaseDistribution]
    texts: dict[str, str]
    fixed: tuple[str, ...]
    idle: dict[str, list[str]]
    listed: bool

    def draw(self, trial: Trial) -> dict[str, Any]:
        """Draw values for a trial, except for settings that have no effect with the others."""
        values: dict[str, Any] = {}
        for key, distribution in self.ranges.items():
            if not self._is_idle(key, values):
                values[key] = _suggest(trial, key, distribution)
        return values

    def check_study(self, study: Study) -> None:
        """Refuse a study that this space cannot be added to: lists must be the same, and intervals of one kind.

        Raises:
            ConfigError: if the study has another range of a setting.
        """
        known = {key: d for trial in study.get_trials(deepcopy=False) for key, d in trial.distributions.items()}
        for key in self.ranges.keys() & known.keys():
            try:
                check_distribution_compatibility(known[key], self.ranges[key])
            except ValueError as error:
                raise ConfigError(
                    f"The study {study.study_name} has another range of {key} than {self.texts[key]}, the one of this "
                    "search. Choose another name for this search: hydra.sweeper.study_name=NAME."
                ) from error

    def combinations(self) -> list[dict[str, Any]]:
        """All different combinations, in the order of Hydra's grid.

        Raises:
            ConfigError: if a range is an interval.
        """
        try:
            lists = [grid_choices(d) for d in self.ranges.values()]
        except ValueError as error:
            raise ConfigError(
                "hydra/sweeper/sampler=grid needs lists, choice(a, b) or range(a, b, step), not intervals. Give every "
                f"setting of the space such a range, or a fixed value: {', '.join(self.ranges)}."
            ) from error
        found: list[dict[str, Any]] = []
        for combination in product(*lists):
            values = dict(zip(self.ranges, combination, strict=True))
            effective = {key: value for key, value in values.items() if not self._is_idle(key, values)}
            if effective not in found:
                found.append(effective)
        return found

    def inside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that lie in their ranges, in the form that the ranges have."""
        found: dict[str, Any] = {}
        for key, distribution in self.ranges.items():
            value = values.get(key)
            if isinstance(distribution, CategoricalDistribution):
                spelt = [choice for choice in distribution.choices if str(choice) == str(value)]
                if spelt:
                    found[key] = spelt[0]
            elif isinstance(value, (int, float)) and _spans(distribution, value):
                found[key] = value
        return found

    def _is_idle(self, key: str, values: Mapping[str, Any]) -> bool:
        return any(key in keys for choice, keys in self.idle.items() if _holds(choice, values))


def build_space(
    preset: Mapping[str, str],
    idle: Mapping[str, Sequence[str]],
    arguments: Sequence[str],
    options: Mapping[str, str],
    learning_blocks: Sequence[str],
    options_of: Options,
) -> Space:
    """Combine a preset with the command line.

    Args:
        preset: range of each setting, as text.
        idle: for ``group=option``, the settings that have no effect with it.
        arguments: the overrides of the command line.
        options: chosen option of each group that is not searched.
        learning_blocks: the trainable blocks, for which ``optimizer.block_lrs.*`` stands.
        options_of: returns the names of all options of a group.

    Raises:
        ConfigError: if a range cannot be read, a setting has a new name, or the space is empty.
    """
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    searched = [override for override in overrides if override.is_sweep_override()]
    for override in searched:
        if override.key_or_group.partition(".")[0] == "sweep":
            raise ConfigError(f"{override.input_line}: the search space itself cannot be searched. Give one value.")
    found = {override.get_key_element(): read_range(override, options_of) for override in searched}
    fixed = tuple(str(override.input_line) for override in overrides if not override.is_sweep_override())
    named = {override.get_key_element().lstrip("+") for override in overrides}
    listed = bool(found) and "sweep" not in named and all(one.listed for one in found.values())
    if not listed:
        useless = {key for choice, keys in idle.items() if _holds(choice, options) for key in keys}
        from_preset = {
            key: parse_range(key, text, options_of)
            for name, text in preset.items()
            for key in _expand(name, learning_blocks)
            if key not in useless and key not in named
        }
        found = {**from_preset, **found}
    ranges = {key: one.distribution for key, one in found.items()}
    refuse_moved([*ranges, *chain.from_iterable((choice.partition("=")[0], *keys) for choice, keys in idle.items())])
    if not ranges:
        raise ConfigError(
            "There is nothing to search: every setting of the space is fixed. Give one a range, for example "
            "'optimizer.head_lr=tag(log, interval(1e-4, 1e-1))', or run without --multirun."
        )
    # Choices first, because other settings may have an effect only with some of them.
    order = sorted(ranges, key=lambda key: not isinstance(ranges[key], CategoricalDistribution))
    return Space(
        {key: ranges[key] for key in (ranges if listed else order)},
        {key: one.text for key, one in found.items()},
        fixed,
        {} if listed else {choice: list(keys) for choice, keys in idle.items()},
        listed,
    )


def _expand(name: str, learning_blocks: Sequence[str]) -> list[str]:
    return [name.replace("*", block) for block in learning_blocks] if name == EACH_BLOCK else [name]


def _holds(choice: str, values: Mapping[str, Any]) -> bool:
    group, _, option = choice.partition("=")
    return str(values.get(group)) == option


def _spans(distribution: BaseDistribution, value: float) -> bool:
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return distribution.low <= value <= distribution.high and distribution.step in (None, 1)


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
