"""Ending trials that promise little."""

from __future__ import annotations

import math
from collections.abc import Callable

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import Trial

from ftexp.config import StageConfig
from ftexp.config.check import check
from ftexp.errors import PrunedError
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.metric_names import METRICS

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
    """Reports a run's epochs to its trial, and ends it before another one where the pruner says so.

    What is reported is what the trial's value would be if the run ended there: the objective at the epoch with the best
    metric, whose weights are the checkpoint; of a later phase, if its gate would keep it. So a pruned trial's value
    means the same as a finished one's. Only a significant gain takes more than records to tell: any gain counts here.

    Args:
        metric: ``train.metric``, which chooses the checkpoint.
        stage: with the gate.
    """

    def __init__(self, trial: Trial, objective: str, metric: str, stage: StageConfig) -> None:
        self._trial = trial
        self._objective = objective
        self._metric = metric
        self._stage = stage
        self._before: EpochRecord | None = None  # the best of the phases before, which the gate has kept
        self._best: EpochRecord | None = None  # of this phase
        self._undecided: EpochRecord | None = None

    def __call__(self, record: EpochRecord) -> None:
        """Report the value of the best checkpoint so far."""
        if self._best is None or record.phase != self._best.phase:
            self._before, self._best = self._best, record
        best = self._best.val[self._metric]
        if METRICS[self._metric].is_better(record.val[self._metric], None if math.isnan(best) else best):
            self._best = record
        self._trial.report(self._value, record.epoch)
        self._undecided = record

    def before_epoch(self) -> None:
        """Ask the pruner, once an epoch; a run that has no epoch left is finished and never asked about.

        Raises:
            PrunedError: if the run is not worth going on with.
        """
        record, self._undecided = self._undecided, None
        if record is not None and self._trial.should_prune():
            raise PrunedError(f"pruned after epoch {record.epoch}: {self._objective} {self._value:.4f}")

    @property
    def _value(self) -> float:
        assert self._best is not None
        best, before = self._best, self._before
        if before is not None and self._stage.gate != "off":
            gain = METRICS[self._metric].gain(before.val[self._metric], best.val[self._metric])
            best = best if gain > self._stage.margin else before
        return best.value(self._objective)
