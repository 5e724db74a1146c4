"""The epochs of one phase: train, validate, save, report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ftexp.config import Config
from ftexp.errors import DivergedError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord, Observer
from ftexp.evaluation.scores import Scores
from ftexp.files.file_format import reading
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.invariants import FrozenBuffers
from ftexp.finetune.param_groups import ParamGroup
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.metric_names import METRICS, recorded
from ftexp.models.blocks import HEAD, Network
from ftexp.training.checkpoints.checkpoint import LAST
from ftexp.training.checkpoints.run_checkpoints import RunCheckpoints
from ftexp.training.compilation import phase_forward
from ftexp.training.epoch_sums import EpochStats, EpochSums
from ftexp.training.inputs.batches import Batches, Forward, Inputs
from ftexp.training.interruption import StopSignals, raise_signal
from ftexp.training.loop import evaluate, train_epoch
from ftexp.training.phase_end import has_another_epoch, log_time_ahead
from ftexp.training.phase_state import PhaseState, begin_phase
from ftexp.training.progress import Progress
from ftexp.training.report import Report
from ftexp.training.run_time import RunTime

log = logging.getLogger(__name__)

# All ranks have to stop and save at the same update. Agreeing takes time, so they do it only every so many updates.
UPDATES_BETWEEN_MEETINGS = 8


@dataclass(slots=True)
class PhaseLoop:
    """Trains phases, and holds what the phases of a run share.

    Attributes:
        network: the network on its device.
        config: the configuration of the run.
        runtime: the device and the ranks.
        checkpoints: writes and reads the checkpoints.
        report: records every epoch.
        stop: receives Ctrl-C and SIGTERM.
        observers: are called after every epoch, and before every epoch but the first; what they raise ends the run.
        starting_weights: of the backbone, by name; empty unless L2-SP or WiSE-FT needs them.
        run_time: plans the phases within ``train.max_minutes``; None: there is no limit.
        history: the epochs of the whole run so far.
        progress: the progress bar.
        asked_after: the epochs that were completed when the observers were last asked whether the run goes on.
    """

    network: Network
    config: Config
    runtime: Runtime
    checkpoints: RunCheckpoints
    report: Report
    stop: StopSignals
    observers: Sequence[Observer]
    starting_weights: Mapping[str, torch.Tensor]
    run_time: RunTime | None = None
    history: list[EpochRecord] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    asked_after: int = 0

    def run(
        self,
        number: int,
        phase: Phase,
        groups: Sequence[ParamGroup],
        inputs: Inputs,
        saved: Mapping[str, Any] | None = None,
        *,
        start: EpochStats | None = None,
        solve: Callable[[], EpochStats] | None = None,
    ) -> Best:
        """Train the parameter groups for the epochs of a phase; call this after ``open_phase``.

        Args:
            number: number of the phase, from 0.
            phase: the phase.
            groups: the parameter groups of the phase.
            inputs: the batches, and the forward for them.
            saved: the saved state, if the phase is resumed; the network already has the saved weights.
            start: the means over the solved head in the network; this start is then epoch 0, and can be the best one.
            solve: solves the head, in place of a training epoch; only if the phase is solved.

        Returns:
            The best epoch of this phase; its weights are in the file that it names.

        Raises:
            DivergedError: if the loss of an epoch is not finite and no retry is left.
            InterruptedRunError: after Ctrl-C or SIGTERM; the run can be resumed from ``last.pt``.
            CheckpointError: if a checkpoint cannot be written.
        """
        untouched = FrozenBuffers(self.network, phase)
        with phase_forward(phase, inputs, self.config.runtime) as forward, self.stop.deferred():
            state = begin_phase(number, phase, groups, inputs, forward, self.config.train, self.starting_weights)
            if self.run_time is not None and not phase.solved:
                state.plan = self.run_time.plan(number, phase, state)
            if saved is not None:
                with reading(self.checkpoints.folder / LAST):
                    state.load_state_dict(dict(saved), self.checkpoints.folder)
                self.checkpoints.find_best_weights(state, len(self.history))
            if start is not None:
                self._score_start(phase, state, start, forward, inputs.val)
            while has_another_epoch(self.config, phase, state, len(self.history)):
                self.before_epoch()
                started = time.perf_counter() - state.sums.seconds
                state.begin_epoch()
                set_train_mode(self.network, phase)
                try:
                    stats = solve() if solve else self._train_epoch(phase, state, inputs.train)
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
                log_time_ahead(self.config, phase, state, record.seconds)
                if state.plan is not None and self.run_time is not None:
                    state.plan.after_epoch(state.updates_done)
                    self.report.time_plan(self.run_time.entries())
        assert state.best is not None
        return state.best

    def score(self, forward: Forward, batches: Batches, split: str = "validation") -> Scores:
        """Score all samples; the network has to be in eval mode. Raises DivergedError where the loss is not finite."""
        return evaluate(forward, batches, self.network.num_classes, self.runtime, split)

    def before_epoch(self) -> None:
        """Call the observers before another epoch, once; call this before anything is prepared for it."""
        if self.asked_after < len(self.history):
            self.asked_after = len(self.history)
            for observer in self.observers:
                observer.before_epoch()

    @property
    def _metrics(self) -> list[str]:
        """The metrics that every epoch records."""
        return recorded(self.config.asked_metrics, self.network.num_classes)

    def _score_start(self, phase: Phase, state: PhaseState, stats: EpochStats, forward: Forward, val: Batches) -> None:
        """Take the weights that the phase starts from as its best so far."""
        self.network.module.eval()
        started = time.perf_counter()
        scores = self.score(forward, val)
        record = replace(self._record(phase, state, stats, scores, time.perf_counter() - started), epoch=0)
        state.best = self.checkpoints.best_of_phase(record, scores)
        self.checkpoints.save_best(state.best)
        self.report.start(record)
        for observe in self.observers:
            observe(record)

    def _train_epoch(self, phase: Phase, state: PhaseState, batches: Batches) -> EpochStats:
        def after_update(sums: EpochSums) -> bool:
            if (plan := state.plan) is not None:
                plan.after_update(state.updates_done)
            minutes = self.config.train.save_every_minutes
            due = minutes is not None and self.checkpoints.minutes_since > minutes
            whole = plan is not None and state.updates_done >= plan.planned
            if self.runtime.ranks.size > 1 and len(sums.norms) % UPDATES_BETWEEN_MEETINGS:
                return whole
            stop = self.runtime.ranks.all_reduce_max(self.stop.requested)
            if stop or self.runtime.ranks.all_reduce_max(due):
                self._save_last(state)
            raise_signal(stop)
            if plan is not None and self.runtime.ranks.all_reduce_max(plan.has_to_stop()):
                plan.stop(state.updates_done)
                return True
            return whole

        description = f"{phase.name} {state.epochs_done + 1}/{state.epochs_of(phase)}"
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
            val=scores.metrics(self._metrics),
            grad_norm=stats.grad_norm,
            head_change=state.head_change,
            lr_head=0.0 if phase.solved else rates.get(HEAD, 0.0),  # a solved start has no rates
            lr_backbone=max((rate for block, rate in rates.items() if block != HEAD), default=None),
            images_per_second=stats.images_per_second,
            seconds=seconds,
            best=METRICS[metric].is_better(
                scores.metric(metric), state.best.scores.metric(metric) if state.best else None
            ),
        )

    def _end_epoch(self, state: PhaseState, record: EpochRecord, scores: Scores) -> None:
        """Save and report the epoch; a run that is killed before it is written trains it again when resumed."""
        value = scores.metric(self.config.train.metric)
        state.schedule.after_epoch(value if METRICS[self.config.train.metric].maximize else -value)
        state.epochs_done += 1
        state.sums = EpochSums()
        self.history.append(record)
        self.progress.metric = f"val {self.config.train.metric} {value:.4f}"
        if record.best:
            state.best = self.checkpoints.best_of_phase(record, scores)
        self._save_last(state)  # before best.pt, which can be restored from it
        if record.best:
            self.checkpoints.save_best_of(state)
        self.report.epoch(record)
        for observe in self.observers:
            observe(record)
        raise_signal(self.runtime.ranks.all_reduce_max(self.stop.requested))

    def _save_last(self, state: PhaseState) -> None:
        run = {"phase_number": state.number, "report": json.dumps(self.report.state())}
        if self.run_time is not None:
            run["time"] = json.dumps(self.run_time.state())
        self.checkpoints.save_last(self.history, run, state)
