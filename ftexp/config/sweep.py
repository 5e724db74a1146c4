"""The schema of ``sweep`` and ``hydra.sweeper``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError, nearest
from ftexp.metric_names import METRICS

# The objectives that a search can optimise, and the direction of each.
DIRECTIONS = {
    **{f"val_{metric.name}": "maximize" if metric.maximize else "minimize" for metric in METRICS.values()},
    "val_loss": "minimize",
    "seconds": "minimize",
    "peak_memory_mib": "minimize",
}


@dataclass(slots=True)
class SweepConfig:
    """What ``--multirun`` searches, and what it optimises."""

    # Setting -> its range in the syntax of Hydra's command line; optimizer.block_lrs.* means one range for each
    # trainable block. Ranges on the command line are added and take precedence.
    space: dict[str, str] = field(default_factory=dict)
    # group=option -> settings of the space that have no effect with this option, so that they are not searched with it.
    idle: dict[str, list[str]] = field(default_factory=dict)
    # The values to optimise, at the best epoch on the validation set. With several, the search keeps the Pareto front:
    # every trial that no other trial beats in all of them.
    objectives: list[str] = field(default_factory=lambda: ["val_${train.metric}"])
    # How many of the best trials to run again with new seeds; the best mean on the validation set wins. 0: none.
    confirm: int = 0
    # How many new seeds each of these trials gets.
    confirm_seeds: int = 3
    # How many trials share a GPU, if the launcher starts several at once.
    trials_per_gpu: int = 1

    def __post_init__(self) -> None:
        check(self.confirm >= 0, "sweep.confirm", self.confirm, "a number of trials, 0 for none")
        check(self.confirm_seeds >= 2, "sweep.confirm_seeds", self.confirm_seeds, "at least 2, to have a spread")
        check(self.trials_per_gpu >= 1, "sweep.trials_per_gpu", self.trials_per_gpu, "at least 1")
        if self.confirm and len(self.objectives) > 1:
            raise ConfigError(
                f"sweep.confirm={self.confirm} needs a single objective, and sweep.objectives={self.objectives} are"
                " several; set sweep.confirm=0 or choose one objective."
            )
        check(len(self.objectives) >= 1, "sweep.objectives", self.objectives, "a list of at least one")
        for name in self.objectives:
            if name.startswith("test"):
                raise ConfigError(
                    f"sweep.objectives={self.objectives}: a search must not use the test split, or the test score would"
                    f" be biased. Allowed are {', '.join(DIRECTIONS)}."
                )
            if name not in DIRECTIONS:
                raise ConfigError(
                    f"sweep.objectives={self.objectives}: there is no {name}.{nearest(name, DIRECTIONS)}"
                    f" Allowed are {', '.join(DIRECTIONS)}."
                )


@dataclass
class SearchSweeperConfig:
    """``hydra.sweeper``: the keys of hydra-optuna-sweeper, some with other defaults, and ``pruner``."""

    _target_: str = "ftexp.sweeps.plugin.SearchSweeper"
    # hydra/sweeper/sampler=tpe, gp, random, cmaes, qmc, grid, nsgaii or nsgaiii.
    sampler: Any = MISSING
    # What stops unpromising trials early: hyperband, median or none.
    pruner: str = "hyperband"
    # maximize or minimize, one for each objective; null: the better direction of each objective.
    direction: Any = None
    # Where the study is stored: journal:///FILE, sqlite:///FILE, postgresql://…; null: a journal in the sweep's folder.
    storage: str | None = None
    # null: a name made from the settings and the space, so that the same command resumes the same study.
    study_name: str | None = None
    # How many ended trials the study has in total, over all calls and processes; null: 20, or the length of a plain
    # list of values.
    n_trials: int | None = None
    # How many trials run at once; needs a launcher (hydra/launcher) that runs several.
    n_jobs: int = 1
    # The sweep stops when more than this fraction of n_trials has failed since it was started.
    max_failure_rate: float = 0.3
    # Setting -> range, as in sweep.space, over which it takes precedence.
    params: dict[str, str] = field(default_factory=dict)
