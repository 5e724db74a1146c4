"""Tensors on the pretended accelerator: each holds a tensor on the CPU, with which every operation is computed.

What a GPU refuses is refused: operations on tensors of several devices, and NumPy arrays that share the device's
memory; and, if the device is like Apple's, float64. What a GPU would wait for is counted: copies from memory that is
not pinned, values that the host reads, and results whose shape depends on values.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.pretended.counts import COUNTS
from ftexp.machine.device_kinds import KINDS

NAME = "pretended"
aten = torch.ops.aten

# Operations that read values on the host, or whose result has a shape that depends on values.
READS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten.equal.default,
    aten._linalg_check_errors.default,
}
# Operations that take indices, which may be on the CPU, and then are copied; the true elements of masks are counted.
INDEXES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default}
# The numbers that are drawn on the device, in order.
GENERATOR = torch.Generator()
# The process that uses the device; those that are forked from it may not.
_PROCESS = os.getpid()


class PretendedTensor(Tensor):
    """A tensor on the pretended accelerator."""

    on_host: Tensor

    @staticmethod
    def __new__(cls, on_host: Tensor) -> PretendedTensor:
        if on_host.dtype == torch.float64 and not KINDS[NAME].float64:
            raise TypeError(f"cannot convert a tensor to float64 on {NAME}, which does not have it")
        if is_forked():
            raise RuntimeError(f"Cannot re-initialize {NAME} in forked subprocess")
        made: PretendedTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_host.shape,
            strides=on_host.stride(),
            storage_offset=on_host.storage_offset(),
            dtype=on_host.dtype,
            layout=on_host.layout,
            device=torch.device(NAME, 0),
        )
        made.on_host = on_host
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["on_host"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: None, size: Any, stride: Any) -> PretendedTensor:
        return PretendedTensor(inner["on_host"])

    def __reduce_ex__(self, protocol: int) -> Any:
        COUNTS.fetched()
        return self.on_host.detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __repr__(self, **_: object) -> str:
        return f"{NAME}({self.on_host!r})"

    def data_ptr(self) -> int:
        """Where it lies; torch says 0 of all wrappers, as if they shared their memory."""
        return self.on_host.data_ptr()

    def tolist(self) -> Any:
        """Torch refuses this for wrappers; of a GPU it copies the tensor to the host."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func):  # in inference mode they come here before they are taken apart
            return func.decompose(*args, **kwargs)
        if func is aten._to_copy.default:
            return _to_copy(*args, **kwargs)
        if func is aten.copy_.default:
            return copy_into(*args, **kwargs)
        _count(func, args, kwargs)
        if "device" in kwargs:
            kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": None}
        on_host_args, on_host_kwargs = tree_map_only(PretendedTensor, _on_host, (args, kwargs))
        with drawing(func):
            result = func(*on_host_args, **on_host_kwargs)
        return return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, PretendedTensor, result))


def is_forked() -> bool:
    """Whether this process was forked from the one that uses the device."""
    return os.getpid() != _PROCESS


@cache
def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _on_host(tensor: PretendedTensor) -> Tensor:
    return tensor.on_host


def _count(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Count what an operation copies, and whether it waits; refuse tensors that are not on the device."""
    if func in READS:
        COUNTS.fetched()
    indices = {id(index) for index in args[1] if index is not None} if func in INDEXES else set()
    for tensor in tree_leaves((args, kwargs)):
        if not isinstance(tensor, Tensor):
            continue
        if id(tensor) in indices and tensor.dtype in (torch.bool, torch.uint8):
            COUNTS.fetched()
        if isinstance(tensor, PretendedTensor) or tensor.dim() == 0:  # a GPU takes numbers on the CPU
            continue
        if id(tensor) not in indices:
            raise RuntimeError(f"{func}: expected all tensors to be on {NAME}:0, but one is on {tensor.device}")
        COUNTS.sent(tensor, non_blocking=False, as_it_is=True)


def _to_copy(source: PretendedTensor, *, device: torch.device | None = None, **kwargs: Any) -> Tensor:
    kwargs.pop("non_blocking", None)
    kwargs.pop("pin_memory", None)
    made: Tensor = aten._to_copy.default(source.on_host, **kwargs)
    if device is None or device.type == NAME:
        return PretendedTensor(made)
    COUNTS.fetched()
    return made


def copy_into(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """Copy a tensor into another, at least one of which is on the device; returns that other."""
    if not isinstance(into, PretendedTensor):
        COUNTS.fetched()
        into.copy_(source.on_host)  # type: ignore[attr-defined]
    elif isinstance(source, PretendedTensor):
        into.on_host.copy_(source.on_host)
    else:
        if non_blocking and not KINDS[NAME].is_accelerator:
            raise RuntimeError(f"the copy to {NAME} may read memory that is freed before it is made")
        as_it_is = source.dtype == into.dtype and _layout(source) == _layout(into)
        COUNTS.sent(source, non_blocking=non_blocking, as_it_is=as_it_is)
        into.on_host.copy_(source)
    return into


def _layout(tensor: Tensor) -> list[tuple[int, int]]:
    """The strides of the dimensions that have any; CUDA copies other layouts by way of memory that is not pinned."""
    return [(size, stride) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


@contextmanager
def drawing(func: Any) -> Iterator[None]:
    """Random operations draw from the device's own generator, and leave that of the CPU alone."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(GENERATOR.get_state())
    try:
        yield
    finally:
        GENERATOR.set_state(torch.get_rng_state())
        torch.set_rng_state(before)
