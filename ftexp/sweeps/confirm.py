"""Confirms the best trials of a search by repeating them with other seeds, on the validation set."""

from __future__ import annotations

import json
import logging
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ftexp.config.moved import renamed_overrides
from ftexp.config.sweep import SweepConfig
from ftexp.errors import ConfigError
from ftexp.files.run_files import status_of
from ftexp.run_result import RunResult
from ftexp.sweeps.job import outcome
from ftexp.sweeps.space import Space

log = logging.getLogger(__name__)

SEED = "runtime.seed"
FOLDER = "confirm"


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The results of a trial's settings with several fresh seeds.

    Attributes:
        trial: number of the trial.
        searched: its value in the search; since the trial was selected by it, it is too good on average.
        seeds: the fresh seeds.
        values: the value of each successful run; there is one run per seed.
    """

    trial: int
    searched: float
    seeds: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether every seed has its value."""
        return len(self.values) == len(self.seeds)

    @property
    def mean(self) -> float | None:
        """The mean of the values; None if there are none."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None if there are fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def as_row(self) -> dict[str, object]:
        """The results as a row of a table."""
        return {
            "trial": self.trial,
            "searched": self.searched,
            "mean": self.mean,
            "spread": self.spread,
            "seeds": list(self.seeds),
            "values": list(self.values),
        }


def check_confirmable(config: SweepConfig, space: Space) -> None:
    """Refuse ``sweep.confirm`` for a search whose space contains the seed.

    Raises:
        ConfigError: if it does.
    """
    if config.confirm and SEED in space.ranges:
        raise ConfigError(
            f"sweep.confirm={config.confirm} runs the best trials with other seeds, and {SEED} is a range of this "
            "search. Remove one of the two."
        )


def confirm(
    study: optuna.Study,
    folder: Path,
    space: Space,
    config: SweepConfig,
    first_seed: int,
    launcher: Callable[[], Any],
    num_jobs: int,
) -> list[Confirmed]:
    """Run the best trials of a completed study again with fresh seeds.

    Each run is a job in ``confirm/TRIAL-SEED`` of the sweep's folder, and not a trial of the study. Runs that have a
    result are not repeated. Other processes of the sweep wait for the first.

    Args:
        study: the study.
        folder: the folder of the sweep.
        space: the searched space.
        config: how many trials to confirm, and with how many seeds.
        first_seed: the seed of the search; the fresh seeds follow it.
        launcher: makes Hydra's launcher.
        num_jobs: number of runs at once.

    Returns:
        The trials with the best mean first, and those without all values last.
    """
    seeds = tuple(range(first_seed, first_seed + config.confirm_seeds))
    (objective,) = config.objectives
    larger_is_better = study.direction == StudyDirection.MAXIMIZE
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ordered = sorted(completed, key=lambda trial: trial.value or 0.0, reverse=larger_is_better)
    distinct = {
        json.dumps(trial.params, sort_keys=True): trial for trial in reversed(ordered)
    }  # the best of equal settings
    chosen = sorted(distinct.values(), key=ordered.index)[: config.confirm]
    with FileLock(folder / ".sessions" / "confirm.lock"):
        jobs = [(trial, seed) for trial in chosen for seed in seeds]
        missing = [(trial, seed) for trial, seed in jobs if _value(folder, trial, seed, objective) is None]
        if missing:
            log.info("confirm the best %d trials, each with %d fresh seeds", len(chosen), len(seeds))
            for trial, seed in missing:  # a killed run is started again, not resumed
                shutil.rmtree(_folder(folder, trial, seed), ignore_errors=True)
            _launch(missing, space, launcher, num_jobs, len(study.get_trials(deepcopy=False)))
    confirmed = []
    for trial in chosen:
        assert trial.value is not None
        values = (_value(folder, trial, seed, objective) for seed in seeds)
        found = tuple(value for value in values if value is not None)
        confirmed.append(Confirmed(trial.number, trial.value, seeds, found))
    sign = -1 if larger_is_better else 1
    return sorted(confirmed, key=lambda one: (not one.complete, sign * (one.mean or 0.0)))


def _launch(
    jobs: Sequence[tuple[FrozenTrial, int]], space: Space, launcher: Callable[[], Any], num_jobs: int, first: int
) -> None:
    started = launcher()
    for start in range(0, len(jobs), num_jobs):
        batch = jobs[start : start + num_jobs]
        overrides = [_overrides(space, trial, seed) for trial, seed in batch]
        returns = started.launch(overrides, initial_job_idx=first + start)
        for (trial, seed), job_return in zip(batch, returns, strict=True):
            _, reason = outcome(job_return)
            if reason:
                log.warning("confirm trial %d with seed %d failed: %s", trial.number, seed, reason)


def _overrides(space: Space, trial: FrozenTrial, seed: int) -> list[str]:
    fixed = [text for text in space.fixed if not text.startswith(f"{SEED}=")]
    params = [f"{key}={value}" for key, value in trial.params.items()]
    settings = renamed_overrides([*fixed, *params])
    return [*settings, f"{SEED}={seed}", f"hydra.sweep.subdir={FOLDER}/{trial.number}-{seed}"]


def _folder(folder: Path, trial: FrozenTrial, seed: int) -> Path:
    return folder / FOLDER / f"{trial.number}-{seed}"


def _value(folder: Path, trial: FrozenTrial, seed: int, objective: str) -> float | None:
    """The value of a confirming run; None if it has no result."""
    confirming = _folder(folder, trial, seed)
    return RunResult.read(confirming).objective(objective) if status_of(confirming) == "finished" else None
