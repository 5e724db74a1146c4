"""An exponential moving average (EMA) of the weights, which is scored and saved instead of the weights."""

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
    """The moving average of all that a phase changes: trainable parameters, and BatchNorm statistics.

    Averages are swapped into the tensors in place, so that everything that holds the tensors sees them, also the
    suffix that runs on cached activations.

    Args:
        module: the module that the tensors belong to.
        tensors: float tensors of any shape; if the list is empty, every call does nothing.
        decay: weight of the average in an update. During the first updates it is at most
            (1 + updates) / (10 + updates), so that the average soon forgets its initial value.

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
        """Update the averages with the present values of the tensors; call this after every optimizer update."""
        if not self._tensors:
            return
        self._num_updates += 1
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        torch._foreach_lerp_(self._averages, [tensor.detach() for tensor in self._tensors], 1 - decay)

    def averages(self) -> list[Tensor]:
        """Copies of the present averages."""
        return [average.clone() for average in self._averages]

    def put_back(self, averages: list[Tensor]) -> None:
        """Restore earlier averages; those of a resumed run may be on another device."""
        pairs = zip(averages, self._tensors, strict=True)
        self._averages = [average.to(tensor.device, copy=True) for average, tensor in pairs]

    def state_dict(self) -> dict[str, Any]:
        """The averages and the number of updates."""
        return {"averages": self.averages(), "num_updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        moved = zip(state["averages"], self._tensors, strict=True)
        self._averages = [average.to(tensor.device) for average, tensor in moved]
        self._num_updates = state["num_updates"]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the tensors within the ``with``; afterwards the tensors have their own values again."""
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
    """The moving average for a phase; call this after ``open_blocks``.

    Args:
        network: the network.
        phase: the phase to be trained.
        decay: ``train.ema``; None: nothing is averaged.
    """
    if decay is None:
        return Ema(network.module, [], 0.0)
    parameters = [parameter for parameter in network.module.parameters() if parameter.requires_grad]
    layers = moving_batch_norms(network, phase)
    statistics = [buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()]
    return Ema(network.module, [*parameters, *statistics], decay)
