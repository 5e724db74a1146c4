"""Divides the memory of a device between training steps and the images and activations that a phase keeps there.

There is one object per device, so that no memory is promised twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import psutil
import torch

from ftexp.machine.accelerator import available_bytes, is_accelerator

# Fractions of the free memory that may be used: of a device, where fragmentation and libraries take the rest, and of
# the CPU, whose memory other programs use as well.
DEVICE_SHARE, CPU_SHARE = 0.85, 0.5
# The largest fraction of a device's free memory that may hold images and activations. As long as the memory of a step
# has not been measured, the other half is left to the step.
LARGEST_KEPT_SHARE = 0.5


@dataclass(slots=True)
class MemoryBudget:
    """The memory of one device.

    Args:
        available: returns how many bytes can be allocated on the device now.
        share: the fraction of these bytes that may be used.
        keeps: whether a phase may keep data on the device; False for the CPU, where the data are anyway.
    """

    available: Callable[[], int]
    share: float
    keeps: bool
    _step_bytes: float | None = field(default=None, init=False)
    _at_start: int = field(default=0, init=False)  # bytes available in this phase before anything was kept
    _kept_bytes: int = field(default=0, init=False)

    def most_for_step(self) -> float:
        """How many bytes a training step may take."""
        return self.share * self.available()

    def promise_step(self, num_bytes: float) -> None:
        """Reserve this many bytes for training steps from now on, in all phases."""
        self._step_bytes = num_bytes

    @property
    def is_step_measured(self) -> bool:
        """Whether the memory of a step was measured, to choose a batch that fits."""
        return self._step_bytes is not None

    def take(self, num_bytes: int) -> bool:
        """Try to reserve bytes on the device until the phase ends; returns whether there is enough memory."""
        if not self.keeps:
            return False
        available = self.available()
        if self._kept_bytes == 0:
            self._at_start = available
        most = LARGEST_KEPT_SHARE * self._at_start
        if self._step_bytes is not None:
            most = min(most, self.share * self._at_start - self._step_bytes)
        # The second value is smaller if other programs have allocated memory since the phase began.
        room = min(most - self._kept_bytes, available - (self._at_start - most))
        if num_bytes > room:
            return False
        self._kept_bytes += num_bytes
        return True

    def end_phase(self) -> None:
        """Release what the phase has reserved; its data must have been freed before."""
        self._kept_bytes = 0


def budget_of(device: torch.device, processes: int) -> MemoryBudget:
    """Make the budget of a device.

    Args:
        device: an accelerator that this process has for itself, or the CPU.
        processes: how many processes on this host share the memory of the CPU.
    """
    if is_accelerator(device):
        return MemoryBudget(partial(available_bytes, device), DEVICE_SHARE, keeps=True)
    return MemoryBudget(lambda: psutil.virtual_memory().available // processes, CPU_SHARE, keeps=False)


def no_budget() -> MemoryBudget:
    """Make a budget that keeps no data on the device, as the default of ``Runtime``."""
    return budget_of(torch.device("cpu"), 1)
