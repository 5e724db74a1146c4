"""What is promised of a device's memory: to a training step, and to the images and activations that a phase keeps.

One object answers all who ask, so that nothing is promised twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psutil
import torch

# Shares of the free memory that may be promised: of a device's, where the rest is lost to fragments and to libraries,
# and of a CPU's, which other programs use as well.
DEVICE_SHARE, CPU_SHARE = 0.85, 0.5
# Most of a device's free memory that may hold images and activations. Where nobody has measured what a step takes, the
# other half is the step's.
LARGEST_KEPT_SHARE = 0.5


@dataclass(slots=True)
class MemoryBudget:
    """The memory of one device.

    Args:
        available: how many bytes could be allocated on the device now.
        share: of these, what may be promised.
        keeps: whether a phase may keep data there; the CPU's is where they are anyway.
    """

    available: Callable[[], int]
    share: float
    keeps: bool
    _step_bytes: float | None = field(default=None, init=False)
    _at_start: int = field(default=0, init=False)  # of the phase: what was available before anything was kept
    _kept_bytes: int = field(default=0, init=False)

    def most_for_step(self) -> float:
        """How many bytes a training step may take."""
        return self.share * self.available()

    def promise_step(self, num_bytes: float) -> None:
        """Leave so many bytes to training steps from now on, in all phases."""
        self._step_bytes = num_bytes

    def take(self, num_bytes: int) -> bool:
        """Whether so many bytes may be kept on the device until the phase ends; if so, they are taken."""
        if not self.keeps:
            return False
        available = self.available()
        if self._kept_bytes == 0:
            self._at_start = available
        most = LARGEST_KEPT_SHARE * self._at_start
        if self._step_bytes is not None:
            most = min(most, self.share * self._at_start - self._step_bytes)
        # The second is less where others have taken of the device since the phase began.
        room = min(most - self._kept_bytes, available - (self._at_start - most))
        if num_bytes > room:
            return False
        self._kept_bytes += num_bytes
        return True

    def end_phase(self) -> None:
        """Take back what was kept; it has to be gone by then."""
        self._kept_bytes = 0


def budget_of(device: torch.device, processes: int) -> MemoryBudget:
    """The budget of a device that each of so many processes on this host has for itself, or of the CPU they share."""
    if device.type == "cuda":
        return MemoryBudget(partial(_available_on_cuda, device), DEVICE_SHARE, keeps=True)
    return MemoryBudget(lambda: psutil.virtual_memory().available // processes, CPU_SHARE, keeps=False)


def no_budget() -> MemoryBudget:
    """Of a device that keeps nothing, for a runtime that is put together by hand."""
    return budget_of(torch.device("cpu"), 1)


def _available_on_cuda(device: torch.device) -> int:
    """What is free, with what torch holds and does not use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
