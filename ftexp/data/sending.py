"""Numbers on their way to a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def send(values: Sequence[object], device: torch.device) -> Tensor:
    """Numbers as a tensor on a device; a GPU need not end what it is at first."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
