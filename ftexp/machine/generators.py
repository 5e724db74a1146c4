"""The random number generators that a run uses: those of Python, NumPy and torch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ftexp.machine.accelerator import has_generator


def seed_generators(*numbers: int) -> None:
    """Seed all generators from these numbers, so that later draws do not depend on earlier ones."""
    python, numpy, high, low = np.random.SeedSequence(numbers).generate_state(4, np.uint32).tolist()
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(high << 31 | low >> 1)


@contextmanager
def forked_generators(device: torch.device) -> Iterator[None]:
    """Restore the state of all generators when the ``with`` block ends.

    Args:
        device: the device whose generator is restored in addition to that of the CPU. No other device is used, because
            reading the generators of CUDA would initialise it on every GPU.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        own = has_generator(device)
        with torch.random.fork_rng([device] if own else [], device_type=device.type if own else "cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
