"""Copies numbers to a device without waiting for what the device is doing.

A plain copy to a GPU waits for the kernels that are queued there, so one in every step would hold the CPU back. A copy
from pinned memory does not wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from ftexp.machine.accelerator import moved, pinned


def to_device(values: Sequence[object], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Make a tensor of numbers on a device.

    Args:
        values: numbers, or nested sequences of numbers of one shape.
        device: the device of the tensor.
        dtype: the dtype of the tensor; None: the one that ``torch.tensor`` chooses.
    """
    return send(torch.tensor(values, dtype=dtype), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of any shape on a device; the copy to an accelerator does not wait for it."""
    return moved(pinned(tensor, device), device)


def batches_to_device(batches: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, ...]:
    """Make an int64 tensor of each batch's numbers on a device, with one copy for all batches of an epoch."""
    numbers = to_device(list(chain.from_iterable(batches)), device, torch.int64)
    return torch.split(numbers, [len(batch) for batch in batches])
