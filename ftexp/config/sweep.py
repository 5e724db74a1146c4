"""The schema of ``sweep`` and ``hydra.sweeper``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError, nearest
from ftexp.evaluation.metric_names import METRICS

# What a search can go by, and which way is better.
DIRECTIONS = {
    **{f"val_{metric.name}": "maximize" if metric.maximize else "minimize" for metric in METRICS.values()},
    "val_loss": "minimize",
    "seconds": "minimize",
    "peak_memory_mib": "minimize",
}


@dataclass(slots=True)
class SweepConfig:
    """What ``--multirun`` searches, and what for."""

    # Setting -> its range as on Hydra's command line; optimizer.block_lrs.* stands for each block that learns.
    # Ranges on the command line are added, and win.
    space: dict[str, str] = field(default_factory=dict)
    # group=option -> settings of the space that have no effect with it, and are then not searched.
    idle: dict[str, list[str]] = field(default_factory=dict)
    # Of the best epoch on validation; several: the search keeps every trial that no other beats in all of them.
    objectives: list[str] = field(default_factory=lambda: ["val_${train.metric}"])
    # The best so many trials are run again with fresh seeds, on validation, and the best mean wins; 0: none.
    confirm: int = 0
    # Fresh seeds for each of them.
    confirm_seeds: int = 3
    # Trials that share a GPU, where the launcher starts several at once.
    trials_per_gpu: int = 1

    def __post_init__(self) -> None:
        check(self.confirm >= 0, "sweep.confirm", self.confirm, "a number of trials, 0 for none")
        check(self.confirm_seeds >= 2, "sweep.confirm_seeds", self.confirm_seeds, "at least 2, or there is no spread")
        check(self.trials_per_gpu >= 1, "sweep.trials_per_gpu", self.trials_per_gpu, "at least 1")
        if self.confirm and len(self.objectives) > 1:
            raise ConfigError(
                f"sweep.confirm={self.confirm} looks for one winner, and sweep.objectives={self.objectives} has several"
                " best trials; leave sweep.confirm at 0 or choose one objective."
            )
        check(len(self.objectives) >= 1, "sweep.objectives", self.objectives, "a list of at least one")
        for name in self.objectives:
            if name.startswith("test"):
                raise ConfigError(
                    f"sweep.objectives={self.objectives}: a search never sees the test split, or its score would mean"
                    f" nothing. Allowed are {', '.join(DIRECTIONS)}."
                )
            if name not in DIRECTIONS:
                raise ConfigError(
                    f"sweep.objectives={self.objectives}: there is no {name}.{nearest(name, DIRECTIONS)}"
                    f" Allowed are {', '.join(DIRECTIONS)}."
                )


@dataclass
class SearchSweeperConfig:
    """``hydra.sweeper``: the keys of hydra-optuna-sweeper, with some other defaults, and ``pruner``."""

    _target_: str = "ftexp.sweeps.plugin.SearchSweeper"
    # hydra/sweeper/sampler=tpe, gp, random, cmaes, qmc, grid, nsgaii or nsgaiii.
    sampler: Any = MISSING
    # Ends trials that promise little: hyperband, median or none.
    pruner: str = "hyperband"
    # maximize or minimize, one for each objective; null: what is better for it.
    direction: Any = None
    # Where the study is kept: journal:///FILE, sqlite:///FILE, postgresql://…; null: a journal in the sweep's folder.
    storage: str | None = None
    # null: made from the settings and the space, so that the same command goes on with the same study.
    study_name: str | None = None
    # Ended trials of the study in all, also over several calls and processes; null: 20, or the length of a plain list.
    n_trials: int | None = None
    # Trials started at once; the launcher (hydra/launcher) has to be one that runs several.
    n_jobs: int = 1
    # The sweep stops when more than this share of n_trials has failed since its start.
    max_failure_rate: float = 0.3
    # Setting -> range, as in sweep.space, over which it wins.
    params: dict[str, str] = field(default_factory=dict)
