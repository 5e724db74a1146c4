"""Recovery from a loss that is not finite: the epoch starts again from its first weights at half the rates."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ftexp.errors import DivergedError
from ftexp.finetune.schedules import Schedule
from ftexp.models.blocks import Network
from ftexp.models.eval_caches import drop_eval_caches
from ftexp.training.ema import Ema

log = logging.getLogger(__name__)


class Recovery:
    """Remembers the state at the beginning of each epoch, and can restore it.

    Args:
        network: the network.
        optimizer: the optimizer of the phase.
        schedule: the learning-rate schedule of the phase.
        ema: the moving average of the weights.
        retries: how often the phase may recover; after that, the error is raised.
    """

    def __init__(self, network: Network, optimizer: Optimizer, schedule: Schedule, ema: Ema, retries: int) -> None:
        self._module = network.module
        self._optimizer = optimizer
        self._schedule = schedule
        self._ema = ema
        self.left = retries
        parameters = [p for p in network.module.parameters() if p.requires_grad]
        self._tensors: list[Tensor] = [*(p.detach() for p in parameters), *network.module.buffers()]
        self.remember()

    @torch.no_grad()
    def remember(self) -> None:
        """Remember the present state; call this at the beginning of every epoch."""
        self._good = [tensor.clone() for tensor in self._tensors]
        self._good_averages = self._ema.averages()
        self._tick = self._schedule.tick

    def state_dict(self) -> dict[str, Any]:
        """The remembered state, and the retries left."""
        return {"left": self.left, "good": self._good, "good_averages": self._good_averages, "tick": self._tick}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned; network, averages and schedule have been restored before."""
        self.left = state["left"]
        if "good" in state:
            self._good = [good.to(now.device) for good, now in zip(state["good"], self._tensors, strict=True)]
            self._good_averages, self._tick = state["good_averages"], state["tick"]
        else:  # saved between epochs: the next one starts from the present state
            self.remember()

    @torch.no_grad()
    def recover(self, error: DivergedError) -> None:
        """Restore the weights, clear the optimizer's state, and halve all later rates.

        Raises:
            DivergedError: the given error, if no retries are left.
        """
        if self.left == 0:
            raise error
        self.left -= 1
        for tensor, good in zip(self._tensors, self._good, strict=True):
            tensor.copy_(good)
        drop_eval_caches(self._module)
        self._ema.put_back(self._good_averages)
        self._optimizer.state.clear()
        for group in self._optimizer.param_groups:
            group.pop("step", None)  # timm's Adan counts its steps here
        self._schedule.restart(self._tick, scale=0.5)
        log.warning(
            "nan     %s The epoch starts again from its first weights at half the rates; retries left: %d.",
            error,
            self.left,
        )
