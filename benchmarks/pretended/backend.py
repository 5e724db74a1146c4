"""Tells torch of the pretended accelerator, a backend of its device PrivateUse1 that is written in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from benchmarks.pretended.counts import COUNTS, Counts, is_pinned, pin
from benchmarks.pretended.tensor import GENERATOR, NAME, PretendedTensor, copy_into, drawing, is_forked
from ftexp.config import machine
from ftexp.machine import device_kinds

aten = torch.ops.aten
# Operations that have no tensor among their arguments, and make one on the device.
MAKERS = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.eye.default,
    aten.linspace.default,
    aten.randperm.default,
)
# What it says to have; nothing is ever allocated on it.
FREE_BYTES = 2**30
_empty = torch.empty
_library = torch.library.Library("aten", "IMPL")


class DeviceModule:
    """What torch and ftexp ask of the module of a device, ``torch.pretended``; as ``torch.cuda`` has it."""

    def is_available(self) -> bool:
        return True

    is_initialized = is_available

    def _is_in_bad_fork(self) -> bool:
        return is_forked()

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def set_device(self, device: torch.device) -> None:
        """There is one."""
        _need_number(device)

    def get_device_name(self, device: object) -> str:
        return "pretended accelerator"

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed_all(self, seed: int) -> None:
        GENERATOR.manual_seed(seed)

    def get_rng_state(self, device: object = NAME) -> Tensor:
        return GENERATOR.get_state()

    def set_rng_state(self, state: Tensor, device: object = NAME) -> None:
        GENERATOR.set_state(state)

    def synchronize(self, device: object = None) -> None:
        COUNTS.waited()

    def mem_get_info(self, device: object) -> tuple[int, int]:
        return FREE_BYTES, FREE_BYTES

    def memory_allocated(self, device: object) -> int:
        return 0

    memory_reserved = max_memory_allocated = memory_allocated

    def get_per_process_memory_fraction(self, device: torch.device) -> float:
        _need_number(device)
        return 1.0

    def reset_peak_memory_stats(self, device: object) -> None:
        """Nothing is measured."""

    def empty_cache(self) -> None:
        """Nothing is cached."""


def _need_number(device: torch.device) -> None:
    """As some functions of ``torch.cuda``."""
    if device.index is None:
        raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")


@contextmanager
def pretended(like: str = "cuda") -> Iterator[Counts]:
    """Let ``runtime.device=pretended`` be a device within the ``with``; yields what is counted, from zero.

    torch knows the device from then on until the process ends; ftexp takes it within the ``with`` only.

    Args:
        like: the type of device whose row of ``ftexp/machine/device_kinds.py`` it has.
    """
    if not hasattr(torch, NAME):
        _register()
    COUNTS.clear()
    kind = replace(device_kinds.KINDS[like], fast_bf16=lambda: False, compiling="nothing is compiled for it")
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(device_kinds.KINDS, {NAME: kind}))
        for owner, name, value in (
            (machine, "DEVICES", (*machine.DEVICES, NAME)),
            (Tensor, "pin_memory", lambda tensor, _device=None: pin(tensor.clone())),
            (Tensor, "is_pinned", is_pinned),
            (torch, "empty", _empty_or_pinned),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        # torch starts its threads for the gradients of each device once, which may have been before it knew this one.
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        yield COUNTS


def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=DeviceModule())
    for operation in MAKERS:
        _library.impl(operation, _made_on_the_device(operation), "PrivateUse1")
    _library.impl(aten._copy_from.default, _copy_from, "PrivateUse1")


def _made_on_the_device(operation: Any) -> Callable[..., Tensor]:
    def make(*args: Any, device: object = None, pin_memory: object = None, **kwargs: Any) -> Tensor:
        with drawing(operation):
            return PretendedTensor(operation(*args, device=torch.device("cpu"), **kwargs))

    return make


def _copy_from(source: Tensor, into: Tensor, non_blocking: bool = False) -> Tensor:
    return copy_into(into, source, non_blocking)


def _empty_or_pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
    made = _empty(*args, **kwargs)
    return pin(made) if pin_memory else made
