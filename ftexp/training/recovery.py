"""Going on after a loss that is not finite: back to the beginning of the epoch, at half the rates."""

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
    """Remembers a phase at the beginning of each epoch, and can take it back there.

    Args:
        retries: how often in this phase; then the error is passed on.
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
        """To be called at the beginning of every epoch."""
        self._good = [tensor.clone() for tensor in self._tensors]
        self._good_averages = self._ema.averages()
        self._tick = self._schedule.tick

    def state_dict(self) -> dict[str, Any]:
        """What is remembered of the epoch's beginning, and the retries left."""
        return {"left": self.left, "good": self._good, "good_averages": self._good_averages, "tick": self._tick}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again what was remembered then; the network, the averages and the schedule are restored already."""
        self.left = state["left"]
        if "good" in state:
            self._good = [good.to(now.device) for good, now in zip(state["good"], self._tensors, strict=True)]
            self._good_averages, self._tick = state["good_averages"], state["tick"]
        else:  # written between epochs: the next begins with what is in place
            self.remember()

    @torch.no_grad()
    def recover(self, error: DivergedError) -> None:
        """Put the weights back, forget the optimizer's moments, and halve all rates from here on.

        Raises:
            DivergedError: the same, when there are no retries left.
        """
        if self.left == 0:
            raise error
        self.left -= 1
        for tensor, good in zip(self._tensors, self._good, strict=True):
            tensor.copy_(good)
        drop_eval_caches(self._module)
        self._ema.put_back(self._good_averages)
        self._optimizer.state.clear()
        self._schedule.restart(self._tick, scale=0.5)
        log.warning(
            "nan     %s The epoch begins again from its first weights at half the rates; retries left: %d.",
            error,
            self.left,
        )
