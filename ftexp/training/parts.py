"""Computes a training step in parts where it runs out of memory and ``train.batch_size=auto`` has chosen the batch."""

from __future__ import annotations

import logging

from torch import Tensor

from ftexp.errors import out_of_memory
from ftexp.machine.accelerator import empty_cache, is_accelerator
from ftexp.training.losses import LossSum
from ftexp.training.step import Step

log = logging.getLogger(__name__)

# BatchNorm in training mode needs two images.
SMALLEST_PART = 2


def backward_in_parts(
    step: Step, inputs: Tensor, labels: Tensor, num_images: int | None, *, completes: bool
) -> LossSum:
    """``Step.backward`` of a batch, in ``step.parts`` parts; these are doubled each time memory runs out.

    The gradients of the parts add up to that of the batch, so the updates stay those of the whole batch, except that
    BatchNorm takes the statistics of each part. Arguments and result are those of ``Step.backward``.

    Raises:
        Exception: an out-of-memory error, where the user has set the batch size, several processes train together (the
            others would wait), the step has gradients of a batch before, or the parts cannot be smaller.
    """
    was_clean = not step.has_gradients
    while True:
        try:
            return _backward(step, inputs, labels, num_images, completes)
        except Exception as error:
            fixed = not step.runtime.memory.is_step_measured or step.runtime.ranks.size > 1 or not was_clean
            if fixed or out_of_memory(error) is None or len(inputs) // (2 * step.parts) < SMALLEST_PART:
                raise
            reason = str(out_of_memory(error)).strip().partition("\n")[0][:200]
        _halve(step, len(inputs), reason)  # after the error, which refers to the tensors of the step


def _backward(step: Step, inputs: Tensor, labels: Tensor, num_images: int | None, completes: bool) -> LossSum:
    parts = min(step.parts, len(inputs) // SMALLEST_PART)  # the last batch of an epoch may be small
    if parts < 2:
        return step.backward(inputs, labels, num_images, completes=completes)
    pairs = zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True)
    losses = [step.backward(*pair, completes=completes) for pair in pairs]
    first, *others = losses
    total, weight = first.total, first.weight
    for loss in others:
        total, weight = total + loss.total, weight + loss.weight
    return LossSum(total, weight)


def _halve(step: Step, num_images: int, reason: str) -> None:
    step.drop_gradients()
    if is_accelerator(step.runtime.device):
        empty_cache(step.runtime.device)
    step.double_parts()
    log.warning(
        "memory  a training step of %d images does not fit any more (%s). From here on it is computed in %d parts, "
        "whose gradients are added up: the updates stay the same, except that BatchNorm sees each part by itself.",
        num_images,
        reason,
        step.parts,
    )
