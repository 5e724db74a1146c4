"""Averaged weights: an exponential moving average that is scored and saved in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ftexp.finetune.batchnorm import moving_batch_norms
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network
from ftexp.models.eval_caches import drop_eval_caches


class Ema:
    """The average of what a phase changes: trainable parameters, and the BatchNorm statistics that move.

    Tensors are swapped in place, so that whoever holds them, a suffix on cached activations too, sees the averages.

    Args:
        module: whose tensors they are.
        tensors: float, of any shapes; none: nothing is averaged, and every call does nothing.
        decay: how much of the average an update keeps, once there have been many; at first less, by
            (1 + updates) / (10 + updates), so that the average soon forgets where it began.

    Source: Tarvainen & Valpola, 2017, "Mean teachers"; the warm-up as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, module: nn.Module, tensors: list[Tensor], decay: float) -> None:
        self._module = module
        self._tensors = tensors
        self._averages = [tensor.detach().clone() for tensor in tensors]
        self._decay = decay
        self._num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the tensors as they are now; to be called after every update of them."""
        if not self._tensors:
            return
        self._num_updates += 1
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        torch._foreach_lerp_(self._averages, [tensor.detach() for tensor in self._tensors], 1 - decay)

    def averages(self) -> list[Tensor]:
        """Copies of the averages as they are now."""
        return [average.clone() for average in self._averages]

    def put_back(self, averages: list[Tensor]) -> None:
        """Go on from averages of an earlier time."""
        self._averages = [average.clone() for average in averages]

    def state_dict(self) -> dict[str, Any]:
        """The averages and how many updates made them."""
        return {"averages": self.averages(), "num_updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state_dict`` was called."""
        moved = zip(state["averages"], self._tensors, strict=True)
        self._averages = [average.to(tensor.device) for average, tensor in moved]
        self._num_updates = state["num_updates"]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the tensors' places within the ``with``; afterwards all is as before."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for tensor, average in zip(self._tensors, self._averages, strict=True):
            kept = tensor.clone()
            tensor.copy_(average)
            average.copy_(kept)
        if self._tensors:
            drop_eval_caches(self._module)


def build_ema(network: Network, phase: Phase, decay: float | None) -> Ema:
    """The average for a phase whose blocks are open; None: one of nothing."""
    if decay is None:
        return Ema(network.module, [], 0.0)
    parameters = [parameter for parameter in network.module.parameters() if parameter.requires_grad]
    layers = moving_batch_norms(network, phase)
    statistics = [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]
    return Ema(network.module, [*parameters, *statistics], decay)
