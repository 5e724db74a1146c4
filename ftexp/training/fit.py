"""Fine-tuning phase by phase: epochs, validation after each, the best weights of each phase."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ftexp.config import Config
from ftexp.errors import DivergedError, InterruptedRunError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord, Observer
from ftexp.evaluation.metric_names import METRICS, recorded
from ftexp.evaluation.scores import Scores
from ftexp.file_format import reading
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.invariants import FrozenBuffers
from ftexp.finetune.param_groups import ParamGroup
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import HEAD, Network
from ftexp.training.batches import Batches, Forward, Inputs
from ftexp.training.checkpoint import LAST, restore_weights
from ftexp.training.compilation import forward_of
from ftexp.training.epoch_sums import EpochStats, EpochSums
from ftexp.training.interruption import StopSignals
from ftexp.training.loop import evaluate, train_epoch
from ftexp.training.phase_state import PhaseState, begin_phase
from ftexp.training.progress import Progress
from ftexp.training.run_checkpoints import RunCheckpoints
from ftexp.training.runtime import Runtime
from ftexp.training.start import best_blend

log = logging.getLogger(__name__)

# Ranks have to stop and save at the same update; asking each other costs a little, so they do not at every one.
UPDATES_BETWEEN_MEETINGS = 8


@dataclass(slots=True)
class Fit:
    """What the phases of a run share, and what they leave behind.

    Attributes:
        observers: are told of every epoch and asked whether there shall be another.
        report: gives what the report has to know when the run is gone on with, as plain data.
        start: the backbone's tensors at the beginning of the run, where a setting refers to them.
        best: of the phases that were kept so far; its checkpoint is ``best.pt``.
        phase_number: of the phase that is under way, from 0.
    """

    network: Network
    config: Config
    runtime: Runtime
    checkpoints: RunCheckpoints
    on_epoch: Callable[[EpochRecord], None]
    report: Callable[[], dict[str, object]] = dict
    stop: StopSignals = field(default_factory=StopSignals)
    observers: Sequence[Observer] = ()
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None
    phase_number: int = 0

    def run_phase(
        self, phase: Phase, groups: Sequence[ParamGroup], inputs: Inputs, saved: Mapping[str, Any] | None = None
    ) -> Best:
        """Train the groups for the phase's epochs; its blocks have to be open already.

        Args:
            saved: where an interrupted run stood in this phase; the network has its tensors of then already.

        Returns:
            The best epoch of this phase; its weights wait in a checkpoint for ``keep``.

        Raises:
            DivergedError: when the loss of an epoch is not finite and no retry is left.
            InterruptedRunError: after Ctrl-C or SIGTERM, with all that is needed to go on in ``last.pt``.
            CheckpointError: when a checkpoint cannot be written.
        """
        forward = forward_of(phase, inputs, self.config.runtime)
        untouched = FrozenBuffers(self.network, phase)
        state = begin_phase(phase, groups, inputs, forward, self.config.train, self.start)
        if saved is not None:
            with reading(self.checkpoints.folder / LAST):
                state.load_state_dict(dict(saved), self.checkpoints.folder)
            self.checkpoints.find_best_weights(state, len(self.history))
        with self.stop.deferred():
            while state.epochs_done < phase.epochs and not self._ran_out_of_patience(state, phase):
                self.before_epoch()
                started = time.perf_counter() - state.sums.seconds
                state.begin_epoch()
                set_train_mode(self.network, phase)
                try:
                    stats = self._train_epoch(phase, state, inputs.train)
                    self.network.module.eval()
                    with state.ema.applied():
                        scores = self.score(forward, inputs.val)
                        untouched.check()
                        record = self._record(phase, state, stats, scores, time.perf_counter() - started)
                except DivergedError as error:
                    state.recovery.recover(error)
                    state.sums = EpochSums()
                    continue
                self._end_epoch(state, record, scores)
        assert state.best is not None
        return state.best

    @property
    def metrics(self) -> list[str]:
        """The metrics that every epoch records."""
        return recorded(self.config.asked_metrics, self.network.num_classes)

    def score(self, forward: Forward, batches: Batches, split: str = "validation") -> Scores:
        """Score all samples; the network has to be in eval mode. Raises DivergedError where the loss is not finite."""
        return evaluate(forward, batches, self.network.num_classes, self.runtime, split, metrics=self.metrics)

    def before_epoch(self) -> None:
        """To be called where another epoch is certain to come, before anything is prepared for it."""
        for observer in self.observers:
            observer.before_epoch()

    def keep(self, best: Best) -> None:
        """Make the best weights of a phase those of the run."""
        self.best = self.checkpoints.keep(best)

    def resume(self, saved: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take up what ``last.pt`` says of the run as a whole; returns what it says of the phase.

        Args:
            saved: the file's content.
        """
        restore_weights(self.network, saved["model"], self.checkpoints.folder / LAST)
        run = saved["run"]
        self.history = [EpochRecord.from_row(record) for record in json.loads(run["history"])]
        self.phase_number = run["phase_number"]
        if run["best"] is not None:
            self.best = Best.from_state(run["best"], self.checkpoints.folder, self.network.num_classes)
        phase: Mapping[str, Any] = saved["phase"]
        return phase

    def blend_with_start(self, val: Batches) -> None:
        """Replace the best weights, which are in the network, by their best average with the start's."""
        assert self.best is not None
        metric, alphas = self.config.train.metric, [1.0, *self.config.train.wise_ft]

        def score() -> Scores:
            return self.score(self.network.module, val)

        self.network.module.eval()
        alpha, scores = best_blend(self.network, self.start, alphas, score, metric)
        values = scores.metric(metric), alpha, self.best.scores.metric(metric)
        log.info("wise-ft %s %.4f at alpha %g; alone %.4f", METRICS[metric].label, *values)
        self.best = replace(self.best, scores=scores, alpha=alpha)
        self.checkpoints.replace_best(self.best)

    def _train_epoch(self, phase: Phase, state: PhaseState, batches: Batches) -> EpochStats:
        def after_update(sums: EpochSums) -> None:
            minutes = self.config.train.save_every_minutes
            due = minutes is not None and self.checkpoints.minutes_since > minutes
            if self.runtime.ranks.size > 1 and len(sums.norms) % UPDATES_BETWEEN_MEETINGS:
                return
            stop = self.runtime.ranks.largest(self.stop.requested)
            if stop or self.runtime.ranks.largest(due):
                self._save_last(state)
            _honour(stop)

        description = f"{phase.name} {state.epochs_done + 1}/{phase.epochs}"
        with self.progress.epoch(description, batches.num_batches) as bar:
            return train_epoch(
                state.step,
                batches,
                len(self.history) + 1,
                bar,
                self.config.train.accumulate,
                sums=state.sums,
                after_update=after_update,
            )

    def _ran_out_of_patience(self, state: PhaseState, phase: Phase) -> bool:
        patience = self.config.train.patience
        if patience is None or state.best is None:
            return False
        waited = len(self.history) - state.best.record.epoch
        if waited < patience:
            return False
        log.info(
            "early   %s ends after %d of %d epochs: no better %s in the last %d (train.patience)",
            phase.name,
            state.epochs_done,
            phase.epochs,
            self.config.train.metric,
            waited,
        )
        return True

    def _record(
        self, phase: Phase, state: PhaseState, stats: EpochStats, scores: Scores, seconds: float
    ) -> EpochRecord:
        metric = self.config.train.metric
        rates = state.rates
        return EpochRecord(
            phase=phase.name,
            epoch=len(self.history) + 1,
            train_loss=stats.loss,
            val_loss=scores.loss,
            val=scores.metrics(self.metrics),
            grad_norm=stats.grad_norm,
            head_change=state.head_change,
            lr_head=rates[HEAD],
            lr_backbone=max((rate for block, rate in rates.items() if block != HEAD), default=None),
            images_per_second=stats.images_per_second,
            seconds=seconds,
            best=METRICS[metric].is_better(
                scores.metric(metric), state.best.scores.metric(metric) if state.best else None
            ),
        )

    def _end_epoch(self, state: PhaseState, record: EpochRecord, scores: Scores) -> None:
        """Save everything, then tell of the epoch: what has been told is never lost."""
        value = scores.metric(self.config.train.metric)
        state.schedule.after_epoch(value if METRICS[self.config.train.metric].maximize else -value)
        state.epochs_done += 1
        state.sums = EpochSums()
        self.history.append(record)
        self.progress.metric = f"val {self.config.train.metric} {value:.4f}"
        if record.best:
            # What phases before have reached stays safe in best.pt until this one has proved to be better.
            state.best = Best(record, scores, self.checkpoints.path(proven=self.best is None))
        self._save_last(state)  # before the best weights: it holds the same, so that they can be had again from it
        if record.best:
            self.checkpoints.save_best_of(state)
        self.on_epoch(record)
        for observe in self.observers:
            observe(record)
        _honour(self.runtime.ranks.largest(self.stop.requested))

    def _save_last(self, state: PhaseState) -> None:
        run = {
            "phase_number": self.phase_number,
            "best": self.best.state_dict() if self.best else None,
            "report": json.dumps(self.report()),
        }
        self.checkpoints.save_last(self.history, run, state)


def _honour(stop: int) -> None:
    """End here if there is a signal to honour, the same on all ranks."""
    if stop:
        raise InterruptedRunError(stop)
