"""The state of all random generators that training draws from, for exact resuming."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from ftexp.machine.accelerator import has_generator, random_state_of, set_random_states


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every random generator that training on a device may use."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [str(kind), [int(key) for key in keys], int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": [random_state_of(device)] if has_generator(device) else [],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore the generators to what ``random_state`` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if has_generator(device) and state["cuda"]:
        set_random_states(device, state["cuda"])
