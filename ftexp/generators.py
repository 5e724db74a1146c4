"""Random numbers that are drawn on the side, without moving the generators that a run depends on."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def forked_generators(device: torch.device) -> AbstractContextManager[None]:
    """Within the ``with``, draw what would be drawn; afterwards, torch's generators are as they were before.

    Args:
        device: whose generator is meant beside the CPU's. No other is touched: to ask CUDA for its generators opens it
            on every GPU, which a run on the CPU has no business with.
    """
    on_cuda = device.type == "cuda"
    return torch.random.fork_rng([device] if on_cuda else [], device_type="cuda")
