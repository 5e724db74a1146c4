"""Numbers on their way to a device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor


def send(values: Sequence[object], device: torch.device) -> Tensor:
    """Numbers as a tensor on a device; a GPU need not end what it is at first."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def send_parts(parts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, ...]:
    """An int64 tensor of each part on a device, all sent at once: each on its own would wait for the step before."""
    numbers = torch.tensor(list(chain.from_iterable(parts)), dtype=torch.int64)
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return torch.split(numbers.to(device, non_blocking=True), [len(part) for part in parts])
