"""Forward passes of whole batches: a smaller last batch is padded where another size would cost seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ftexp.finetune.batchnorm import batch_norms
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import Runtime

if TYPE_CHECKING:  # what predicts a few images does without the batches of a run
    from ftexp.training.inputs.batches import Forward


def whole_batches(forward: Forward, module: nn.Module | None, size: int, runtime: Runtime) -> Forward:
    """The forward; on a device that has to prepare for each size of a batch, one that pads smaller batches.

    Args:
        forward: from inputs [B, ...] to outputs [B * k, ...], with the k rows of an input behind each other.
        module: the network that it runs; None if nothing in it uses statistics of the batch.
        size: images of this process in a whole batch.
        runtime: the device and the ranks.
    """
    return WholeBatches(forward, module, size) if KINDS[runtime.device.type].prepares_sizes else forward


class WholeBatches:
    """Pads batches that are smaller than the whole ones, and drops the outputs of the padding.

    Gradients and scores are those of the smaller batch, because the network treats each image by itself. It does not if
    its BatchNorm computes statistics of the batch: then smaller batches stay as they are.

    Args:
        forward: see ``whole_batches``.
        module: see ``whole_batches``.
        size: images in a whole batch.

    Attributes:
        parts: in how many parts a batch is trained on, because memory ran out; only the size of a part is filled up.
    """

    def __init__(self, forward: Forward, module: nn.Module | None, size: int) -> None:
        self._forward = forward
        self._module = module
        self._size = size
        self.parts = 1

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs [B, ...] -> outputs [B * k, ...]."""
        count, size = len(inputs), self._size
        if torch.is_grad_enabled():
            size = -(-size // self.parts)
        if not 0 < count < size or _uses_batch_statistics(self._module):
            return self._forward(inputs)
        outputs = self._forward(filled_up(inputs, size))
        return outputs[: len(outputs) * count // size]


def filled_up(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """The inputs [B, ...] padded to ``size`` rows with copies of the last one, in the same memory layout."""
    row = inputs[0]
    spread = 1 + sum((length - 1) * stride for length, stride in zip(row.shape, row.stride(), strict=True))
    row = row if spread == row.numel() else row.contiguous()
    strides = (row.numel(), *row.stride())  # one row after the other, as in a full batch
    whole = torch.empty_strided((size, *row.shape), strides, dtype=row.dtype, device=row.device)
    whole[: len(inputs)] = inputs
    whole[len(inputs) :] = inputs[-1:]
    return whole


def _uses_batch_statistics(module: nn.Module | None) -> bool:
    return module is not None and any(layer.training for layer in batch_norms(module))
