"""What a search is going to do. All its settings are checked here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from optuna.pruners import BasePruner

from ftexp.config import Config, parse
from ftexp.config.check import check
from ftexp.config.recipe import AUTO
from ftexp.config.sweep import DIRECTIONS
from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD
from ftexp.search_preset import choose_preset
from ftexp.sweeps.confirm import check_confirmable
from ftexp.sweeps.pruning import build_pruner
from ftexp.sweeps.ranges import Options, check_whole_numbers
from ftexp.sweeps.space import EACH_BLOCK, Space, build_space
from ftexp.sweeps.study import Direction, name_study

DEFAULT_TRIALS = 20
METRIC = "train.metric"


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a search is going to do.

    Attributes:
        config: of a run, with the first value of each range that has no configured one.
        name: of the study.
        directions: of each objective.
        space: what is searched.
        is_grid: whether all its points are tried.
        first_points: all points of a grid; of a search, the configured values.
        num_trials: the number of trials.
        jobs: trials that run at the same time.
        max_failure_rate: the share of trials that may fail.
        sampler: the settings of Optuna's sampler.
        pruner_name: how the pruner is called in the configuration.
        pruner: stops trials early.
        epochs: of a trial, over all its phases.
    """

    config: Config
    name: str
    directions: list[Direction]
    space: Space
    is_grid: bool
    first_points: list[dict[str, Any]]
    num_trials: int
    jobs: int
    max_failure_rate: float
    sampler: dict[str, Any]
    pruner_name: str
    pruner: BasePruner
    epochs: int


def plan_sweep(
    composed: DictConfig, settings: Mapping[str, Any], arguments: Sequence[str], options_of: Options
) -> SweepPlan:
    """Plan a search; arguments as of ``sweep``.

    Raises:
        UserError: if the space, the objectives or another setting is not valid.
    """
    config, plain = _run_part(composed, arguments)
    directions = _directions(settings["direction"], config.sweep.objectives)
    preset = choose_preset(config, composed.hydra.runtime.choices, arguments)
    space = build_space(
        preset={**preset.space, **(settings["params"] or {})},
        idle=preset.idle,
        arguments=arguments,
        options=composed.hydra.runtime.choices,
        learning_blocks=_learning_blocks(config) if EACH_BLOCK in preset.space else [],
        options_of=options_of,
    )
    for key, distribution in space.ranges.items():
        check_whole_numbers(key, distribution, space.texts[key], OmegaConf.select(composed, key.lstrip("+")))
    _check_objectives(composed, space)
    check_confirmable(config.sweep, space)
    sampler = cast(dict[str, Any], OmegaConf.to_container(settings["sampler"]))
    is_grid = space.listed or sampler["_target_"].endswith(".GridSampler")
    foreseen = _foreseen(config)
    first_points = space.combinations() if is_grid else [_configured(space, composed, foreseen)]
    pruner_name = "none" if space.listed else settings["pruner"]
    epochs = sum(int(phase.epochs) for phase in foreseen.stage.phases)
    check(settings["n_jobs"] >= 1, "hydra.sweeper.n_jobs", settings["n_jobs"], "at least 1")
    rate = settings["max_failure_rate"]
    check(0 <= rate <= 1, "hydra.sweeper.max_failure_rate", rate, "between 0 and 1")
    return SweepPlan(
        config=config,
        name=settings["study_name"] or name_study("grid" if space.listed else preset.name, plain, space.texts),
        directions=directions,
        space=space,
        is_grid=is_grid,
        first_points=first_points,
        num_trials=_num_trials(settings["n_trials"], len(first_points) if is_grid else None),
        jobs=settings["n_jobs"],
        max_failure_rate=rate,
        sampler=sampler,
        pruner_name=pruner_name,
        pruner=build_pruner(pruner_name, epochs, len(directions)),
        epochs=epochs,
    )


def _num_trials(asked: int | None, points: int | None) -> int:
    """The number of trials: as many as asked for, but of a grid with so many points no more than these."""
    total = asked if asked is not None else points or DEFAULT_TRIALS
    total = total if points is None else min(total, points)
    check(total >= 1, "hydra.sweeper.n_trials", total, "at least 1")
    return total


def _run_part(composed: DictConfig, arguments: Sequence[str]) -> tuple[Config, dict[str, Any]]:
    """The configuration of a run: as an object, and as plain data from which the study gets its name."""
    task = composed.copy()
    with read_write(task), open_dict(task):
        task.pop("hydra")
    plain = OmegaConf.to_container(task, resolve=True)
    assert isinstance(plain, dict)
    del plain["tracking"]  # tracking does not change the search, and neither does what follows it
    for key in ("confirm", "confirm_seeds", "trials_per_gpu"):
        del plain["sweep"][key]
    _fill_gaps(task, arguments)
    return parse(task), cast(dict[str, Any], plain)


def _fill_gaps(task: DictConfig, arguments: Sequence[str]) -> None:
    """Give settings without a configured value, such as ``data.root``, the first value of their range."""
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        group, _, key = override.key_or_group.rpartition(".")
        tried = override.value()
        if isinstance(tried, ChoiceSweep) and group and OmegaConf.is_missing(OmegaConf.select(task, group), key):
            first = tried.list[0]
            OmegaConf.update(task, f"{group}.{key}", first.text if isinstance(first, QuotedString) else first)


def _directions(given: Any, objectives: Sequence[str]) -> list[Direction]:
    if given is None:
        return [cast(Direction, DIRECTIONS[name]) for name in objectives]
    texts = [str(text) for text in given] if isinstance(given, (list, ListConfig)) else [str(given)]
    allowed = len(texts) == len(objectives) and set(texts) <= {"maximize", "minimize"}
    check(allowed, "hydra.sweeper.direction", given, f"null, or one of maximize, minimize for each of {objectives}")
    return [cast(Literal["minimize", "maximize"], text) for text in texts]


def _check_objectives(composed: DictConfig, space: Space) -> None:
    """Refuse objectives that would be another metric in each trial.

    Raises:
        ConfigError: if ``train.metric`` is searched, and the objectives refer to it.
    """
    searched = {key.lstrip("+") for key in space.ranges}
    written = cast(dict[str, Any], OmegaConf.to_container(composed.sweep, resolve=False))["objectives"]
    if METRIC in searched and METRIC in str(written):
        raise ConfigError(
            f"{METRIC} is searched, and sweep.objectives={written} would be another metric in each trial. Name the one "
            "that all trials are compared by, for example sweep.objectives=[val_accuracy]."
        )


def _learning_blocks(config: Config) -> list[str]:
    from ftexp.preparation.prepare import plan

    blocks = {block: None for phase in plan(config) for block in phase.learning}
    return [block for block in blocks if block != HEAD]


def _configured(space: Space, composed: DictConfig, foreseen: Config) -> dict[str, Any]:
    """The configured values of the searched settings, if they lie in the space; of ``auto``, what it comes to."""
    options = composed.hydra.runtime.choices
    values = {key: options.get(key, OmegaConf.select(composed, key)) for key in space.ranges}
    return space.inside({k: attrgetter(k)(foreseen) if value == AUTO else value for k, value in values.items()})


def _foreseen(config: Config) -> Config:
    from ftexp.preparation.prepare import foresee

    return foresee(config)
