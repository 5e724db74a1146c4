"""The generators of random numbers that a run draws from: Python's, NumPy's and torch's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(*numbers: int) -> None:
    """Seed all of them from these numbers, so that what is drawn next does not depend on what was drawn before."""
    python, numpy, high, low = np.random.SeedSequence(numbers).generate_state(4, np.uint32).tolist()
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(high << 31 | low >> 1)


@contextmanager
def forked_generators(device: torch.device) -> Iterator[None]:
    """Within the ``with``, draw what would be drawn; afterwards, the generators are as they were before.

    Args:
        device: whose generator is meant beside the CPU's. No other is touched: to ask CUDA for its generators opens it
            on every GPU, which a run on the CPU has no business with.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
