"""Pruning: ending trials early whose results are not promising."""

from __future__ import annotations

import math
from collections.abc import Callable

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import Trial

from ftexp.config import StageConfig
from ftexp.config.check import check
from ftexp.errors import PrunedError
from ftexp.evaluation.history import EpochRecord
from ftexp.metric_names import METRICS

# Name -> function from the number of epochs of a trial to the pruner.
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    # Successive halving in brackets that start at one epoch; a third of the trials continues each time (Li et al.,
    # 2018). The brackets end at half of the epochs, not at all, because the paper's last bracket prunes nothing,
    # which is too expensive for twenty trials. benchmarks/sweep_quality.py measures what this costs.
    "hyperband": lambda epochs: HyperbandPruner(min_resource=1, max_resource=max(1, epochs // 2), reduction_factor=3),
    # Prunes a trial that is below the median of earlier trials at the same epoch, once there are enough of them.
    "median": lambda _: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    "none": lambda _: NopPruner(),
}


def build_pruner(name: str, epochs: int, num_objectives: int = 1) -> BasePruner:
    """Build the pruner of a name; with several objectives, nothing is pruned, because trials have no order.

    Args:
        name: ``hydra.sweeper.pruner``.
        epochs: epochs of a trial; it must be the same number for all trials of a study.
        num_objectives: number of objectives.

    Raises:
        ConfigError: if there is no pruner of that name.
    """
    check(name in PRUNERS, "hydra.sweeper.pruner", name, f"one of {', '.join(PRUNERS)}")
    return PRUNERS[name](epochs) if num_objectives == 1 else NopPruner()


class PruningObserver:
    """Reports the epochs of a run to its trial, and ends the run before another epoch if the pruner decides so.

    It reports the value that the trial would have if the run ended now: the objective at the epoch with the best
    metric, whose weights are the checkpoint. An epoch of a later phase counts only if the gate would keep the phase. So
    the value of a pruned trial means the same as that of a finished one. With gate=significant, any gain counts here,
    because records of epochs are not enough for the test.

    Args:
        trial: the trial.
        objective: name of the objective.
        metric: ``train.metric``, which selects the checkpoint.
        stage: the stage, with the settings of the gate.
    """

    def __init__(self, trial: Trial, objective: str, metric: str, stage: StageConfig) -> None:
        self._trial = trial
        self._objective = objective
        self._metric = metric
        self._stage = stage
        self._before: EpochRecord | None = None  # best epoch of the kept phases before this one, which it starts from
        self._best: EpochRecord | None = None  # best epoch of this phase
        self._undecided: EpochRecord | None = None

    def __call__(self, record: EpochRecord) -> None:
        """Report the value of the best checkpoint so far."""
        if self._best is None or record.phase != self._best.phase:
            self._before, self._best = self._kept, record
        best = self._best.val[self._metric]
        if METRICS[self._metric].is_better(record.val[self._metric], None if math.isnan(best) else best):
            self._best = record
        if record.epoch == 0:
            return  # the solved start, of which nothing is decided
        self._trial.report(self._value, record.epoch)
        self._undecided = record

    def before_epoch(self) -> None:
        """Ask the pruner, once per epoch; a run without a further epoch is finished and not pruned.

        Raises:
            PrunedError: if the pruner ends the run.
        """
        record, self._undecided = self._undecided, None
        if record is not None and self._trial.should_prune():
            raise PrunedError(f"pruned after epoch {record.epoch}: {self._objective} {self._value:.4f}")

    @property
    def _value(self) -> float:
        assert self._kept is not None
        return self._kept.value(self._objective)

    @property
    def _kept(self) -> EpochRecord | None:
        """The best epoch of this phase if the gate would keep it, else that of the phases before."""
        best, before = self._best, self._before
        if best is None or before is None or self._stage.gate == "off":
            return best
        gain = METRICS[self._metric].gain(before.val[self._metric], best.val[self._metric])
        return best if gain > self._stage.margin else before
