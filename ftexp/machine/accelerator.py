"""Devices with memory of their own, which compute while the host goes on, and copy from pinned memory without waiting.

Which devices these are says ``machine/device_kinds.py``. What they have in common is asked of torch's module for
the device, such as ``torch.cuda``, so that another device with such a module can take the same path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.backends import cpu

from ftexp.machine.device_kinds import KINDS


def is_accelerator(device: torch.device) -> bool:
    """Whether a device has memory of its own, to which pinned memory is copied without waiting."""
    kind = KINDS.get(device.type)
    return kind is not None and kind.is_accelerator


def has_generator(device: torch.device) -> bool:
    """Whether random numbers on a device come from a generator of its own."""
    kind = KINDS.get(device.type)
    return kind is not None and kind.has_generator


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in pinned memory if the device is an accelerator and the tensor is on the CPU, else the tensor."""
    return tensor.pin_memory() if is_accelerator(device) and tensor.device.type == "cpu" else tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; only a copy of pinned memory to an accelerator does not wait."""
    return tensor.to(device, non_blocking=is_accelerator(device))


def device_name(device: torch.device) -> str:
    """The name of a device's hardware; of a CPU, its vector instructions."""
    if device.type == "mps":
        return str(torch.backends.mps.get_name())
    return str(_module(device).get_device_name(device) if is_accelerator(device) else cpu.get_cpu_capability())


def available_bytes(device: torch.device) -> int:
    """Bytes that this process may still take on an accelerator.

    They are those that are free, with those that torch has reserved and does not use, up to the process's share.
    """
    module = _module(device)
    allocated = module.memory_allocated(device)
    free, total = module.mem_get_info(device)
    unused = module.memory_reserved(device) - allocated
    share = module.get_per_process_memory_fraction(device) * total - allocated
    return int(min(free + unused, share))


def limit_memory(device: torch.device, share: float) -> None:
    """Let this process take this share of an accelerator's memory, and leave the rest to others."""
    _module(device).set_per_process_memory_fraction(share, device)


def peak_bytes(device: torch.device) -> int:
    """The most bytes of an accelerator that tensors have taken since ``forget_peak``."""
    return int(_module(device).max_memory_allocated(device))


def forget_peak(device: torch.device) -> int:
    """Measure ``peak_bytes`` from now on; returns the bytes that tensors take now."""
    module = _module(device)
    module.reset_peak_memory_stats(device)
    return int(module.memory_allocated(device))


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch has reserved on an accelerator and does not use."""
    _module(device).empty_cache()


def current(device: torch.device) -> torch.device:
    """The accelerator that torch uses where none of its type is named by its number: the first, unless one was set."""
    module = _module(device)
    return torch.device(device.type, module.current_device() if module.is_initialized() else 0)


def use(device: torch.device) -> None:
    """Make an accelerator the one on which torch allocates where no number is named."""
    if device.index is not None:
        _module(device).set_device(device)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has computed everything."""
    if is_accelerator(device):
        _module(device).synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def random_state_of(device: torch.device) -> Tensor:
    """The state of the generator that random numbers on a device are drawn from."""
    state: Tensor = _module(device).get_rng_state(device) if has_generator(device) else torch.get_rng_state()
    return state


def set_random_states(device: torch.device, states: Sequence[Tensor]) -> None:
    """Restore the generator of a device; a state that another type of device has saved is not used.

    Args:
        device: a device with a generator of its own.
        states: its state; or, as earlier versions of ftexp saved them, those of all devices of its machine.
    """
    if states[0].shape != random_state_of(device).shape:
        return
    number = device.index or 0
    if len(states) == 1:
        _module(device).set_rng_state(states[0], device)
    elif number < len(states):
        _module(device).set_rng_state(states[number], device)


def _module(device: torch.device) -> Any:
    return torch.get_device_module(device)
