"""A training epoch, and an evaluation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence

import torch

from ftexp.errors import DivergedError
from ftexp.evaluation.scores import ScoreKeeper, Scores
from ftexp.machine.runtime import Runtime
from ftexp.training.epoch_sums import EpochStats, EpochSums
from ftexp.training.inputs.batches import Batches, Forward
from ftexp.training.parts import backward_in_parts
from ftexp.training.progress import Bar
from ftexp.training.step import Step

log = logging.getLogger(__name__)

# A message names at most this many samples of a batch.
NAMED_SAMPLES = 8


def completes_update(batch: int, num_batches: int, accumulate: int) -> bool:
    """Whether an update follows a batch of an epoch.

    Args:
        batch: number of the batch, from 0.
        num_batches: batches in the epoch.
        accumulate: batches per update.
    """
    return (batch + 1) % accumulate == 0 or batch + 1 == num_batches


def train_epoch(
    step: Step,
    batches: Batches,
    epoch: int,
    bar: Bar,
    accumulate: int = 1,
    *,
    sums: EpochSums | None = None,
    after_update: Callable[[EpochSums], bool] = lambda _: False,
) -> EpochStats:
    """Train for one epoch, or for the rest of one. Nothing is read back from the device before the end.

    Args:
        step: the training step.
        batches: the training batches.
        epoch: number of the epoch in the run, from 1; it decides the order of the samples.
        bar: the progress bar.
        accumulate: batches per update; the last update of the epoch may have fewer.
        sums: the sums of the part of the epoch that is done; None: the epoch starts with its first batch.
        after_update: is called after every update; the epoch ends there if it returns True, or raises.

    Raises:
        DivergedError: if the epoch's loss or gradient is not finite.
    """
    sums = sums or EpochSums()
    started = time.perf_counter() - sums.seconds
    done = len(sums.sizes)
    for number, (inputs, labels) in enumerate(batches.epoch(epoch, done), done):
        completes = completes_update(number, batches.num_batches, accumulate)
        loss = backward_in_parts(step, inputs, labels, batches.num_images(number), completes=completes)
        sums.add(loss, len(labels))
        if completes:
            sums.norms.append(step.update())
            sums.seconds = time.perf_counter() - started
        bar.advance(len(labels), loss.mean)
        if completes and after_update(sums):
            break
    whole = sums.over(step.runtime.ranks)
    whole.seconds = time.perf_counter() - started  # the device has computed all of it only now
    stats = whole.stats(may_skip=step.scaler.is_enabled())
    if not (math.isfinite(stats.loss) and math.isfinite(stats.grad_norm)):
        raise _diverged(epoch, stats, whole, batches)
    if stats.num_skipped == len(whole.norms):
        _all_skipped(epoch, stats, step.scaler.get_scale())
    return stats


def _diverged(epoch: int, stats: EpochStats, sums: EpochSums, batches: Batches) -> DivergedError:
    """The error, which names the first batch whose loss is not finite, and its samples."""
    bad = [number for number, total in enumerate(sums.totals) if not math.isfinite(total)]
    where = "the gradients, while all losses are finite"
    if bad:
        where = f"batch {bad[0] + 1} of {len(sums.sizes)}: {some_of(batches.paths(epoch, bad[0]))}"
    return DivergedError(
        f"Epoch {epoch}: the training loss or its gradient is not finite (loss {stats.loss:g}, gradient norm "
        f"{stats.grad_norm:g}), first in {where}. "
        "Look at these images, lower optimizer.head_lr and optimizer.backbone_lr, or set train.clip_norm."
    )


def _all_skipped(epoch: int, stats: EpochStats, scale: float) -> None:
    """Warn that all updates of an epoch were skipped; an error if fp16's scaler cannot lower its scale any more."""
    message = (
        f"Epoch {epoch}: the gradients overflowed fp16 in all {stats.num_skipped} updates, so all were skipped and the"
        f" weights are unchanged; the loss scale is down to {scale:g}."
    )
    if scale < 1:
        raise DivergedError(f"{message} Set runtime.precision=bf16 or fp32.")
    log.warning("fp16    %s If this continues, set runtime.precision=bf16 or fp32.", message)


@torch.inference_mode()
def evaluate(
    forward: Forward,
    batches: Batches,
    num_classes: int,
    runtime: Runtime,
    split: str = "validation",
) -> Scores:
    """Score all samples; the network has to be in eval mode.

    Args:
        forward: function from inputs [B, ...] to logits [B, C].
        batches: the batches to score.
        num_classes: number of classes.
        runtime: the device, the precision and the ranks.
        split: the name of the samples in messages.

    Raises:
        DivergedError: if the loss is not finite; the message names the samples.
    """
    keeper = ScoreKeeper(num_classes)
    for inputs, labels in batches.epoch(0):
        if len(labels) == 0:  # the last batch has fewer images than there are ranks; many networks cannot run on none
            continue
        with runtime.autocast():
            logits = forward(inputs)
        keeper.update(logits, labels)
    scores, not_finite = keeper.compute(runtime.ranks)
    if not_finite:
        paths = [path for batch in range(batches.num_batches) for path in batches.paths(0, batch)]
        named = "all images" if len(not_finite) == len(paths) else some_of([paths[i] for i in not_finite])
        raise DivergedError(
            f"The {split} loss is not finite ({scores.loss:g}): the network's outputs are NaN or too large for "
            f"{len(not_finite)} of {scores.num_samples} images ({named}). "
            "Look at these images, lower optimizer.head_lr and optimizer.backbone_lr, set train.clip_norm, or, if the "
            "outputs overflow half precision, set runtime.precision=fp32."
        )
    return scores


def some_of(paths: Sequence[str]) -> str:
    """A phrase with the first few paths, and how many more there are."""
    more = f" and {len(paths) - NAMED_SAMPLES} more" if len(paths) > NAMED_SAMPLES else ""
    return ", ".join(paths[:NAMED_SAMPLES]) + more
