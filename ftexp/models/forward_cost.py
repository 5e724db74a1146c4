"""What a forward pass of a network costs: seconds and memory for each image, and the number of its parameters."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftexp.machine.accelerator import wait_for
from ftexp.machine.runtime import Runtime

ROUNDS = 3
# Memory is counted for several images, so that what does not depend on their number weighs less.
IMAGES = 8


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """What a network costs.

    Attributes:
        seconds: for each image, the median of ``ROUNDS`` passes.
        mib: of the tensors that exist at once, at the most, for each image, the image among them; without the weights
            and without the workspace of single operations.
        parameters: number of parameters.
    """

    seconds: float
    mib: float
    parameters: int


@torch.no_grad()
def forward_cost(module: nn.Module, image_size: int, runtime: Runtime) -> ForwardCost:
    """Measure forward passes of a network in eval mode on its device.

    Args:
        module: takes images [B, 3, H, W].
        image_size: H and W.
        runtime: the device and the precision.
    """
    images = runtime.place_images(torch.zeros(IMAGES, 3, image_size, image_size))
    times = []
    with runtime.autocast():
        with LiveBytes((*module.parameters(), *module.buffers())) as live:
            live.add(images)
            module(images)
        for _ in range(ROUNDS):
            wait_for(runtime.device)
            started = time.perf_counter()
            module(images)
            wait_for(runtime.device)
            times.append(time.perf_counter() - started)
    return ForwardCost(
        statistics.median(times) / IMAGES,
        live.peak / IMAGES / 2**20,
        sum(parameter.numel() for parameter in module.parameters()),
    )


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made within a ``with`` and still exist; ``peak`` is the most so far.

    Args:
        known: tensors that are not counted, and neither are views of them.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._live = 0
        self._counted = {tensor.untyped_storage()._cdata for tensor in known}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor, unless it shares its memory with one that is counted already."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._counted:
            return
        self._counted.add(key)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self._live -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do the operation, and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return result
