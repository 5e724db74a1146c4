"""One training step, one pass over the training samples, one over samples to score."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ftexp.errors import DivergedError
from ftexp.report.progress import Bar
from ftexp.training.batches import Batches, Forward
from ftexp.training.metrics import ScoreKeeper, Scores
from ftexp.training.runtime import Runtime


class Step:
    """Forward, backward, clip, update.

    Args:
        forward: inputs [B, ...] -> logits [B, classes].
        scheduler: ticked after every step; None: the caller ticks it after every epoch.
        clip_norm: largest gradient norm over all parameters of the optimizer; None: unlimited.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        loss_fn: nn.Module,
        clip_norm: float | None,
        runtime: Runtime,
    ) -> None:
        self.runtime = runtime
        self._forward = forward
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._loss_fn = loss_fn
        self._clip_norm = clip_norm
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step; returns the batch's loss and the gradient's norm before clipping, both on the device."""
        with self.runtime.autocast():
            loss = self._loss_fn(self._forward(inputs), labels)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._scheduler is not None:
            self._scheduler.step()
        # Scaled fp16 gradients overflow now and then by design; the scaler skipped that step, the mean does too.
        return loss.detach(), norm.nan_to_num(0.0, 0.0) if self._scaler.is_enabled() else norm


@dataclass(frozen=True, slots=True)
class EpochStats:
    """Means over the samples (loss) and the steps (norm) of one training pass."""

    loss: float
    grad_norm: float
    images_per_second: float


def train_epoch(step: Step, batches: Batches, epoch: int, bar: Bar) -> EpochStats:
    """Run one epoch. Nothing is read back from the device before its end.

    Raises:
        DivergedError: if the epoch's loss or gradient is not finite.
    """
    started = time.perf_counter()
    loss_sum = torch.zeros((), device=step.runtime.device)
    norm_sum = torch.zeros((), device=step.runtime.device)
    num_images = num_steps = 0
    for inputs, labels in batches.epoch(epoch):
        loss, norm = step(inputs, labels)
        loss_sum += loss * len(labels)
        norm_sum += norm
        num_images += len(labels)
        num_steps += 1
        bar.advance(len(labels), loss)
    loss_mean, norm_mean = loss_sum.item() / num_images, norm_sum.item() / num_steps
    if not (math.isfinite(loss_mean) and math.isfinite(norm_mean)):
        raise DivergedError(
            f"Epoch {epoch}: the training loss is {loss_mean:g} and the gradient's norm {norm_mean:g}. "
            "Lower optimizer.head_lr and optimizer.backbone_lr, or set train.clip_norm."
        )
    return EpochStats(loss_mean, norm_mean, num_images / (time.perf_counter() - started))


@torch.inference_mode()
def evaluate(forward: Forward, batches: Batches, num_classes: int, runtime: Runtime) -> Scores:
    """Score all samples; the network has to be in eval mode."""
    keeper = ScoreKeeper(num_classes)
    for inputs, labels in batches.epoch(0):
        with runtime.autocast():
            logits = forward(inputs)
        keeper.update(logits, labels)
    return keeper.compute()
