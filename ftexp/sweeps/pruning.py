"""Ending trials that promise little."""

from __future__ import annotations

from collections.abc import Callable

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import Trial

from ftexp.config.check import check
from ftexp.config.sweep import DIRECTIONS
from ftexp.errors import PrunedError
from ftexp.training.history import EpochRecord

# Name -> from the epochs of a trial to the pruner.
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    # Successive halving in brackets, from one epoch on, a third going on each time (Li et al., 2018). The brackets end
    # at half of the epochs, not at all of them: the paper's last bracket prunes nothing, which a hundred trials can
    # afford and twenty cannot. benchmarks/sweep_quality.py measures what it costs.
    "hyperband": lambda epochs: HyperbandPruner(min_resource=1, max_resource=max(1, epochs // 2), reduction_factor=3),
    # Below the median of the trials before it at the same epoch; not before there are some to compare with.
    "median": lambda _: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "none": lambda _: NopPruner(),
}


def build_pruner(name: str, epochs: int, num_objectives: int = 1) -> BasePruner:
    """The pruner of that name; none where several objectives leave no order between trials.

    Args:
        epochs: of a trial. The same number for all trials of a study, or they would be compared at different epochs.

    Raises:
        ConfigError: for a name that there is not.
    """
    check(name in PRUNERS, "hydra.sweeper.pruner", name, f"one of {', '.join(PRUNERS)}")
    return PRUNERS[name](epochs) if num_objectives == 1 else NopPruner()


class PruningObserver:
    """Reports a run's epochs to its trial, and ends it where the pruner says so."""

    def __init__(self, trial: Trial, objective: str) -> None:
        self._trial = trial
        self._objective = objective
        self._best: float | None = None

    def __call__(self, record: EpochRecord) -> None:
        """Report the best value so far.

        Raises:
            PrunedError: if the run is not worth going on with.
        """
        value = float(getattr(record, self._objective))
        better = max if DIRECTIONS[self._objective] == "maximize" else min
        self._best = value if self._best is None else better(self._best, value)
        self._trial.report(self._best, record.epoch)
        if self._trial.should_prune():
            raise PrunedError(f"pruned after epoch {record.epoch}: {self._objective} {self._best:.4f}")
