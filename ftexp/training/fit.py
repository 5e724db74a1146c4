"""Fine-tuning phase by phase: epochs, validation after each, the best weights of each phase."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ftexp.config import Config
from ftexp.errors import DivergedError
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.invariants import FrozenBuffers
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import ParamGroup
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Schedule, Span
from ftexp.models.blocks import HEAD, Network
from ftexp.report.progress import Progress
from ftexp.training.batches import Batches, Forward, Inputs
from ftexp.training.checkpoint import save_checkpoint
from ftexp.training.ema import build_ema
from ftexp.training.history import EpochRecord
from ftexp.training.loop import EpochStats, Step, evaluate, train_epoch
from ftexp.training.losses import build_loss
from ftexp.training.metrics import Scores, is_better
from ftexp.training.recovery import Recovery
from ftexp.training.runtime import Runtime
from ftexp.training.start import StartPenalty, best_blend

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the best weights, what they scored on validation, and where they are.

    Attributes:
        alpha: the epoch's share in the weights where they are an average with the run's start; 1: its own alone.
    """

    record: EpochRecord
    scores: Scores
    checkpoint: Path
    alpha: float = 1.0


@dataclass(slots=True)
class Fit:
    """What the phases of a run share, and what they leave behind.

    Attributes:
        start: the backbone's tensors at the beginning of the run, where a setting refers to them.
        best: of the phases that were kept so far; its checkpoint is ``best.pt``.
    """

    network: Network
    config: Config
    runtime: Runtime
    class_to_idx: dict[str, int]
    checkpoints: Path
    on_epoch: Callable[[EpochRecord], None]
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None

    def run_phase(self, phase: Phase, groups: Sequence[ParamGroup], inputs: Inputs) -> Best:
        """Train the groups for the phase's epochs; its blocks have to be open already.

        Returns:
            The best epoch of this phase; its weights wait in a checkpoint for ``keep``.

        Raises:
            DivergedError: when the loss leaves the numbers.
        """
        num_batches, settings = inputs.train.num_batches, self.config.train
        span = Span(phase.epochs, math.ceil(num_batches / settings.accumulate), inputs.train.num_samples)
        optimizer = build_optimizer(phase.optimizer, groups, self.runtime.device)
        schedule = Schedule(phase.scheduler, optimizer, span)
        forward = self._compiled(inputs.forward) if self.runtime.compile else inputs.forward
        ema = build_ema(self.network, phase, settings.ema)
        after_update = (schedule.after_step, ema.update)
        step = self._build_step(forward, optimizer, inputs.class_weights, after_update)
        best: Best | None = None
        head = [p.detach().clone() for p in self.network.parameters(HEAD).values()]
        untouched = FrozenBuffers(self.network, phase)
        recovery = Recovery(self.network, optimizer, schedule, ema, settings.nan_retries)
        number = 0
        while number < phase.epochs:
            started = time.perf_counter()
            rates = _rates(optimizer)
            recovery.remember()
            set_train_mode(self.network, phase)
            try:
                with self.progress.epoch(f"{phase.name} {number + 1}/{phase.epochs}", num_batches) as bar:
                    stats = train_epoch(step, inputs.train, len(self.history) + 1, bar, settings.accumulate)
            except DivergedError as error:
                recovery.recover(error)
                continue
            number += 1
            self.network.module.eval()
            with ema.applied():
                scores = evaluate(forward, inputs.val, self.network.num_classes, self.runtime)
                untouched.check()
                best = self._finish_epoch(phase, rates, stats, scores, self._head_change(head), started, best)
            schedule.after_epoch(scores.metric(settings.metric))
            if self._ran_out_of_patience(best, number, phase):
                break
        assert best is not None
        return best

    def keep(self, best: Best) -> None:
        """Make the best weights of a phase those of the run."""
        checkpoint = self.checkpoints / "best.pt"
        os.replace(best.checkpoint, checkpoint)
        self.best = replace(best, checkpoint=checkpoint)

    def drop(self, best: Best) -> None:
        """Forget a phase."""
        best.checkpoint.unlink()

    def blend_with_start(self, val: Batches) -> None:
        """Replace the best weights, which are in the network, by their best average with the start's."""
        assert self.best is not None
        metric, alphas = self.config.train.metric, [1.0, *self.config.train.wise_ft]
        scored: list[Scores] = []

        def score() -> float:
            scored.append(evaluate(self.network.module, val, self.network.num_classes, self.runtime))
            return scored[-1].metric(metric)

        self.network.module.eval()
        alpha, value = best_blend(self.network, self.start, alphas, score)
        log.info("wise-ft %s %.4f at alpha %g; alone %.4f", metric, value, alpha, scored[0].metric(metric))
        self.best = replace(self.best, scores=scored[alphas.index(alpha)], alpha=alpha)
        self._save(self.best.checkpoint, self.best.record.epoch, metric, value)

    def _compiled(self, forward: Forward) -> Forward:
        torch.compiler.reset()  # other blocks learn now: graphs of the phase before would only fill the cache
        if forward is not self.network.module:
            compiled: Forward = torch.compile(forward)
            return compiled
        self.network.module.compile()  # in place: the names in the state dict stay plain
        return forward

    def _build_step(
        self,
        forward: Forward,
        optimizer: Optimizer,
        class_weights: torch.Tensor | None,
        after_update: Sequence[Callable[[], object]],
    ) -> Step:
        settings = self.config.train
        loss_fn = build_loss(settings, class_weights).to(self.runtime.device)
        penalty = StartPenalty(self.network, self.start, settings.l2_sp)
        return Step(
            forward,
            optimizer,
            loss_fn,
            self.runtime,
            clip_norm=settings.clip_norm,
            before_update=[penalty.add_gradients],
            after_update=after_update,
        )

    def _ran_out_of_patience(self, best: Best, number: int, phase: Phase) -> bool:
        patience, waited = self.config.train.patience, len(self.history) - best.record.epoch
        if patience is None or waited < patience or number == phase.epochs:
            return False
        log.info(
            "early   %s ends after %d of %d epochs: no better %s in the last %d (train.patience)",
            phase.name,
            number,
            phase.epochs,
            self.config.train.metric,
            waited,
        )
        return True

    def _finish_epoch(
        self,
        phase: Phase,
        rates: dict[str, float],
        stats: EpochStats,
        scores: Scores,
        head_change: float,
        started: float,
        best: Best | None,
    ) -> Best:
        """Record an epoch and save its weights; returns the best epoch of the phase now."""
        metric = self.config.train.metric
        value = scores.metric(metric)
        record = EpochRecord(
            phase=phase.name,
            epoch=len(self.history) + 1,
            train_loss=stats.loss,
            val_loss=scores.loss,
            val_accuracy=scores.accuracy,
            val_macro_f1=scores.macro_f1,
            grad_norm=stats.grad_norm,
            head_change=head_change,
            lr_head=rates[HEAD],
            lr_backbone=max((rate for block, rate in rates.items() if block != HEAD), default=None),
            images_per_second=stats.images_per_second,
            seconds=time.perf_counter() - started,
            best=is_better(value, best.scores.metric(metric) if best else None),
        )
        self.history.append(record)
        self.progress.metric = f"val {metric} {value:.4f}"
        # What phases before have reached stays safe in best.pt until this one has proved to be better.
        checkpoint = self.checkpoints / ("best.pt" if self.best is None else "candidate.pt")
        if record.best:
            best = Best(record, scores, checkpoint)
            self._save(checkpoint, record.epoch, metric, value)
        self._save(self.checkpoints / "last.pt", record.epoch, metric, value)
        self.on_epoch(record)
        assert best is not None
        return best

    def _head_change(self, before: Sequence[torch.Tensor]) -> float:
        now = [p.detach() for p in self.network.parameters(HEAD).values()]
        moved = get_total_norm([a - b for a, b in zip(now, before, strict=True)])
        return (moved / get_total_norm(before)).item()

    def _save(self, path: Path, epoch: int, metric: str, value: float) -> None:
        save_checkpoint(
            path,
            self.network,
            self.config,
            class_to_idx=self.class_to_idx,
            epoch=epoch,
            metric=metric,
            value=value,
        )


def _rates(optimizer: Optimizer) -> dict[str, float]:
    """Block -> the rate its groups have now."""
    return {str(group["block"]): float(group["lr"]) for group in optimizer.param_groups}
