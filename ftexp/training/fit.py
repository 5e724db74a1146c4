"""The training of a run: its phases one after the other, as long as the gate keeps their results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.evaluation.best import Best
from ftexp.evaluation.gate import best_case, judge
from ftexp.evaluation.history import EpochRecord, Observer
from ftexp.evaluation.scores import Scores
from ftexp.finetune.epochs import span_of
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.param_groups import group_table
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime, seed_phase
from ftexp.models.blocks import Network
from ftexp.training.begin_in_time import begin_in_time
from ftexp.training.checkpoints.run_checkpoints import RunCheckpoints
from ftexp.training.epoch_sums import EpochStats
from ftexp.training.frozen_head import FrozenHead
from ftexp.training.inputs.batches import Batches, Forward
from ftexp.training.inputs.features import FeatureInputs, KnownFeatures
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.interruption import StopSignals
from ftexp.training.phase_loop import PhaseLoop
from ftexp.training.phase_state import open_phase
from ftexp.training.report import Report
from ftexp.training.restore import restore
from ftexp.training.run_time import RunTime
from ftexp.training.solve import SolvedHead
from ftexp.training.starting_weights import backbone_state
from ftexp.training.time_cuts import log_cuts
from ftexp.training.whole_batches import whole_batches
from ftexp.training.wise_ft import average_with_start

log = logging.getLogger(__name__)


def fine_tune(
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    report: Report,
    stop: StopSignals | None = None,
    observers: Sequence[Observer] = (),
    *,
    features: KnownFeatures | None = None,
    judges_labels: bool = False,
    resumable: bool = True,
    run_id: str = "",
    run_time: RunTime | None = None,
) -> Fit:
    """Train the phases one after the other, each from the best weights so far; the gate keeps the result or not.

    With ``config.resume.run``, training is resumed from ``last.pt`` in the report's folder.

    Args:
        config: the configuration of the run.
        network: the network on its device; it is trained in place.
        splits: the samples of the run.
        phases: the planned phases.
        runtime: the device and the ranks.
        report: records the run, and names the folder for the checkpoints.
        stop: receives Ctrl-C and SIGTERM; training stops after the next update.
        observers: are called after every epoch, and before every epoch but the first; what they raise ends the run.
        features: what enters the last layer before the first phase; None: a pass computes it where it is needed.
        judges_labels: whether the run tells how many labels look wrong; for one process, and if copies are known.
        resumable: whether ``last.pt`` is written, from which the run can be resumed.
        run_id: the id in ``run.json``, which is saved in every checkpoint.
        run_time: plans the phases within ``train.max_minutes``, and has measured the network; None: there is no limit.

    Returns:
        The training with its history and its best epoch; the best weights are in the network and in ``best.pt``.

    Raises:
        DivergedError: if the loss of an epoch is not finite and no retry is left.
        InterruptedRunError: after Ctrl-C or SIGTERM; the run can be resumed from ``last.pt``.
        CheckpointError: if a checkpoint cannot be written or read.
    """
    folder = report.folder / "checkpoints"
    checkpoints = RunCheckpoints(folder, network, config, splits.class_to_idx, runtime.ranks, resumable, run_id)
    starting_weights = backbone_state(network) if config.train.needs_starting_weights else {}
    shared = network, config, runtime, checkpoints, report
    loop = PhaseLoop(*shared, stop or StopSignals(), observers, starting_weights, run_time)
    frozen_head = FrozenHead(network, config, runtime, splits, features)
    fit = Fit(*shared, splits, phases, loop, frozen_head, judges_labels)
    with checkpoints:
        fit.run()
    return fit


@dataclass(frozen=True, slots=True)
class Fit:
    """The training of one run, and its result.

    Attributes:
        network: the network on its device.
        config: the configuration of the run.
        runtime: the device and the ranks.
        checkpoints: writes and reads the checkpoints.
        report: records the run.
        splits: the samples of the run.
        phases: the planned phases.
        loop: trains one phase.
        frozen_head: solves the head.
        judges_labels: whether the labels are judged before the first phase.
    """

    network: Network
    config: Config
    runtime: Runtime
    checkpoints: RunCheckpoints
    report: Report
    splits: Splits
    phases: Sequence[Phase]
    loop: PhaseLoop
    frozen_head: FrozenHead
    judges_labels: bool = False

    @property
    def history(self) -> list[EpochRecord]:
        """All epochs so far, of all phases."""
        return self.loop.history

    @property
    def best(self) -> Best | None:
        """The best epoch of the kept phases so far; its weights are in ``best.pt``."""
        return self.checkpoints.best

    def run(self) -> None:
        """Train the remaining phases; afterwards the best weights are in the network."""
        length = self.config.train, len(self.splits.train), self.runtime.ranks.size
        self.report.plan(self.phases, self.network, [span_of(phase, self.network, *length) for phase in self.phases])
        first, saved = restore(self.loop, len(self.phases)) if self.config.resume.run else (0, None)
        start = self._before_the_first_phase() if saved is None else None
        for number in range(first, len(self.phases)):
            begun = saved if number == first else None
            solved = start if number == 0 else None
            if (begun is None and self._is_hopeless(number)) or not self._run_phase(number, begun, solved):
                break
        if (run_time := self.loop.run_time) is not None:
            log_cuts(run_time)
        if self.config.train.wise_ft and (run_time is None or run_time.allows_averages):
            average_with_start(self.loop, self.inputs(), self.splits.val, self.score)

    def score(self, forward: Forward, batches: Batches, split: str = "validation") -> Scores:
        """Score all samples; the network has to be in eval mode. Raises DivergedError where the loss is not finite."""
        size = self.runtime.ranks.local_batch_size(self.config.train.images_per_step)
        whole = whole_batches(forward, self.network.module, size, self.runtime)
        return self.loop.score(whole, batches, split)

    def inputs(self, config: Config | None = None) -> InputSource:
        """The source of the batches for this run's network and splits, with the run's configuration or another."""
        return InputSource(config or self.config, self.network, self.splits, self.runtime)

    def _run_phase(self, number: int, saved: Mapping[str, Any] | None, start: EpochStats | None) -> bool:
        """Train one phase, starting from the weights in the network; afterwards the run's best weights are in it.

        Args:
            number: number of the phase, from 0.
            saved: the saved state of the phase, if an interrupted run is resumed in it.
            start: the means over the solved head that the phase starts from; None: it starts from another head.

        Returns:
            Whether the stage goes on.
        """
        phase, network, settings = self.phases[number], self.network, self.config
        if (run_time := self.loop.run_time) is not None:
            knows_features = number == 0 and self.frozen_head.known is not None
            if (begun := begin_in_time(run_time, number, saved, knows_features=knows_features)) is None:
                return False
            phase, settings = begun
        self.loop.before_epoch()
        with open_phase(network, phase, settings.train) as groups, self.inputs(settings) as source:
            self.report.start_phase(phase, group_table(network, groups))
            set_train_mode(network, phase)
            if phase.solved:
                features = self.frozen_head.features(phase, source, pretrained=number == 0)
                solve = partial(self._solve, features)
                best = self.loop.run(number, phase, groups, features.inputs, saved, solve=solve)
            else:
                inputs = source.for_phase(phase)
                seed_phase(settings.runtime.seed, number, self.runtime.ranks)
                best = self.loop.run(number, phase, groups, inputs, saved, start=start)
        before = self.best
        verdict = judge(settings.stage, settings.train.metric, before.scores, best.scores) if before else None
        self.report.end_phase(phase, best, verdict)
        kept = verdict is None or verdict.kept
        self.checkpoints.settle(best, kept=kept)
        goes_on = kept or settings.stage.on_dropped == "continue"
        if not goes_on and (rest := self.phases[number + 1 :]):
            log.info("gate    %s not begun (stage.on_dropped=stop)", ", ".join(later.name for later in rest))
        return goes_on

    def _is_hopeless(self, number: int) -> bool:
        """Whether the gate would drop this phase and all later ones, however good they were; if so, record it."""
        if self.best is None:
            return False
        verdict = best_case(self.config.stage, self.config.train.metric, self.best.scores)
        if not verdict.kept:
            self.report.skip(self.phases[number:], verdict, self.best.scores.num_samples)
        return not verdict.kept

    def _solve(self, features: FeatureInputs) -> EpochStats:
        """Solve the head, in place of an epoch."""
        return self._record_solved(self.frozen_head.solve(features))

    def _record_solved(self, head: SolvedHead) -> EpochStats:
        self.report.solved(head)
        solution, seconds = head.chosen.solution, head.pass_seconds + head.solve_seconds
        return EpochStats(solution.loss, solution.gradient_norm, head.num_images / seconds)

    def _before_the_first_phase(self) -> EpochStats | None:
        """Judge the labels and solve the head, if the run does so; returns the means over a solved start."""
        run_time = self.loop.run_time
        if (
            self.judges_labels
            and (run_time is None or run_time.allows_labels)
            and (judged := self.frozen_head.judge_labels(self.phases[0])) is not None
        ):
            self.report.labels(judged)
        head = self.frozen_head.solve_start(self.phases[0], run_time)
        return None if head is None else self._record_solved(head)
