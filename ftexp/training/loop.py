"""One training step, one pass over the training samples, one over samples to score."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ftexp.errors import DivergedError
from ftexp.ranks import Ranks
from ftexp.training.batches import Batches, Forward
from ftexp.training.metrics import ScoreKeeper, Scores
from ftexp.training.progress import Bar
from ftexp.training.runtime import Runtime

# How many samples of a batch a message names.
NAMED_SAMPLES = 8


class Step:
    """Gradients of one batch or several, then clip and update.

    Args:
        forward: inputs [B, ...] -> logits [B, classes].
        loss_fn: logits and targets -> the mean over the batch's samples.
        clip_norm: largest gradient norm over all parameters of the optimizer; None: unlimited.
        before_update: called with all gradients in place, before they are clipped.
        after_update: called after every update, in this order.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: Optimizer,
        loss_fn: nn.Module,
        runtime: Runtime,
        *,
        clip_norm: float | None = None,
        before_update: Sequence[Callable[[], object]] = (),
        after_update: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.runtime = runtime
        self._forward = forward
        self._optimizer = optimizer
        self._loss_fn = loss_fn
        self._clip_norm = clip_norm
        self._before_update = tuple(before_update)
        self._after_update = tuple(after_update)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "fp16")
        self._batch_sizes: list[int] = []

    def backward(
        self, inputs: torch.Tensor, labels: torch.Tensor, num_images: int | None = None, *, completes: bool = True
    ) -> torch.Tensor:
        """Add a batch's gradients to those since the last update.

        Args:
            num_images: in the batch over all ranks; None: this one has all of it.
            completes: whether an update follows; until then the ranks keep their gradients to themselves.

        Returns:
            The mean loss of this rank's part, on the device.
        """
        if not self._batch_sizes:
            self._optimizer.zero_grad(set_to_none=True)
        self._batch_sizes.append(num_images or len(labels))
        with self._apart(completes), self.runtime.autocast():
            loss: torch.Tensor = self._loss_fn(self._forward(inputs), labels)
        # Every sample weighs the same, however many its batch or its rank has; the ranks' gradients are averaged.
        # Relative to the first batch: fp16 holds the sum.
        weight = len(labels) * self.runtime.ranks.size / self._batch_sizes[0]
        torch.autograd.backward(self.scaler.scale(loss if weight == 1 else loss * weight))
        return loss.detach()

    def _apart(self, completes: bool) -> AbstractContextManager[None]:
        if isinstance(self._forward, DistributedDataParallel) and not completes:
            return self._forward.no_sync()
        return nullcontext()

    def update(self) -> torch.Tensor:
        """Update by the mean gradient over all samples since the last time; returns its norm before clipping."""
        self.scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if len(self._batch_sizes) > 1:
            torch._foreach_mul_(gradients, self._batch_sizes[0] / sum(self._batch_sizes))
        self._batch_sizes.clear()
        for call in self._before_update:
            call()
        norm = nn.utils.get_total_norm(gradients)
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        for call in self._after_update:
            call()
        # Scaled fp16 gradients overflow now and then by design; the scaler skipped that step, the mean does too.
        return norm.nan_to_num(0.0, 0.0) if self.scaler.is_enabled() else norm


@dataclass(frozen=True, slots=True)
class EpochStats:
    """Means over the samples (loss) and the steps (norm) of one training pass."""

    loss: float
    grad_norm: float
    images_per_second: float


@dataclass(slots=True)
class EpochSums:
    """What a training pass has done so far; with it the pass can go on where it stopped.

    Attributes:
        losses: of this rank's part of each batch, its mean loss, on the device; ``sizes``: its images.
        norms: of each update, the gradient norm before clipping, on the device.
        seconds: up to the last update.
    """

    losses: list[torch.Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    norms: list[torch.Tensor] = field(default_factory=list)
    seconds: float = 0.0

    def over(self, ranks: Ranks) -> EpochSums:
        """The same of whole batches, on the CPU; this waits for the device and for the other ranks."""
        if not self.losses:
            return self
        losses, sizes = torch.stack(self.losses).cpu().double(), torch.tensor(self.sizes)
        if ranks.size > 1:
            whole = ranks.sum(sizes)
            losses, sizes = ranks.sum(losses * sizes) / whole, whole
        norms = list(torch.stack(self.norms).cpu()) if self.norms else []
        return EpochSums(list(losses), sizes.tolist(), norms, self.seconds)

    def stats(self) -> EpochStats:
        """The means over what was summed up on this rank."""
        losses, sizes = torch.stack(self.losses).double(), torch.tensor(self.sizes)
        norms = torch.stack(self.norms).double()
        num_images = sum(self.sizes)
        return EpochStats(
            loss=((losses * sizes).sum() / num_images).item(),
            grad_norm=norms.mean().item(),
            images_per_second=num_images / self.seconds,
        )

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """Of all ranks together, as plain data for a file."""
        whole = self.over(ranks)
        return {
            "losses": [loss.item() for loss in whole.losses],
            "sizes": list(whole.sizes),
            "norms": [norm.item() for norm in whole.norms],
            "seconds": whole.seconds,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device, ranks: Ranks) -> EpochSums:
        """As they were when ``state_dict`` was called; the main rank stands for what all had done."""
        losses, norms = ([torch.tensor(value, device=device) for value in state[key]] for key in ("losses", "norms"))
        sizes = list(state["sizes"]) if ranks.is_main else [0] * len(losses)
        return cls(losses, sizes, norms, state["seconds"])


def train_epoch(
    step: Step,
    batches: Batches,
    epoch: int,
    bar: Bar,
    accumulate: int = 1,
    *,
    sums: EpochSums | None = None,
    after_update: Callable[[EpochSums], None] = lambda _: None,
) -> EpochStats:
    """Run one epoch, or the rest of one. Nothing is read back from the device before its end.

    Args:
        epoch: from 1 over the whole run; decides the order of the samples.
        accumulate: batches per update; the epoch's last update may have fewer.
        sums: of the part that was run before; None: from the first batch.
        after_update: called after every update; what it raises ends the epoch there.

    Raises:
        DivergedError: if the epoch's loss or gradient is not finite.
    """
    sums = sums or EpochSums()
    started = time.perf_counter() - sums.seconds
    for number, (inputs, labels) in enumerate(batches.epoch(epoch, len(sums.losses)), len(sums.losses)):
        completes = (number + 1) % accumulate == 0 or number + 1 == batches.num_batches
        sums.losses.append(step.backward(inputs, labels, batches.num_images(number), completes=completes))
        sums.sizes.append(len(labels))
        if completes:
            sums.norms.append(step.update())
            sums.seconds = time.perf_counter() - started
            after_update(sums)
        bar.advance(len(labels), sums.losses[-1])
    whole = sums.over(step.runtime.ranks)
    stats = whole.stats()
    if not (math.isfinite(stats.loss) and math.isfinite(stats.grad_norm)):
        raise _diverged(epoch, stats.loss, stats.grad_norm, torch.stack(whole.losses), batches)
    return stats


def _diverged(epoch: int, loss: float, norm: float, losses: torch.Tensor, batches: Batches) -> DivergedError:
    """The error that names the first batch whose loss is not finite, and its samples."""
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    where = "its gradients, not its losses"
    if bad:
        paths = batches.paths(epoch, bad[0])
        more = f" and {len(paths) - NAMED_SAMPLES} more" if len(paths) > NAMED_SAMPLES else ""
        where = f"batch {bad[0] + 1} of {len(losses)}: {', '.join(paths[:NAMED_SAMPLES])}{more}"
    return DivergedError(
        f"Epoch {epoch} left the numbers (loss {loss:g}, gradient norm {norm:g}), first in {where}. "
        "Look at these images, lower optimizer.head_lr and optimizer.backbone_lr, or set train.clip_norm."
    )


@torch.inference_mode()
def evaluate(forward: Forward, batches: Batches, num_classes: int, runtime: Runtime) -> Scores:
    """Score all samples; the network has to be in eval mode."""
    keeper = ScoreKeeper(num_classes)
    for inputs, labels in batches.epoch(0):
        if len(labels) == 0:  # fewer images in the last batch than ranks, and many networks cannot run on none
            continue
        with runtime.autocast():
            logits = forward(inputs)
        keeper.update(logits, labels)
    return keeper.compute(runtime.ranks)
