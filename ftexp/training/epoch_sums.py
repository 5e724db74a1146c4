"""What a training pass adds up, batch by batch, and the means that it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ftexp.machine.distributed import Ranks
from ftexp.training.losses import LossSum

# On the device while the pass runs; a plain number once it has been read, and after an interruption.
Number = Tensor | float


@dataclass(frozen=True, slots=True)
class EpochStats:
    """Means over one training pass.

    Attributes:
        loss: the sum over all samples by the sum of their weights, as if the pass were one batch.
        grad_norm: over the updates.
        num_skipped: updates that fp16's scaler left out, as their gradients overflowed; they are not in ``grad_norm``.
    """

    loss: float
    grad_norm: float
    images_per_second: float
    num_skipped: int = 0


@dataclass(slots=True)
class EpochSums:
    """What a training pass has done so far; with it the pass can go on where it stopped.

    Attributes:
        totals, weights: of this rank's part of each batch, the sum of its losses and its denominator.
        sizes: its images.
        norms: of each update, the gradient norm before clipping.
        seconds: up to the last update.
    """

    totals: list[Number] = field(default_factory=list)
    weights: list[Number] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    norms: list[Number] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, loss: LossSum, size: int) -> None:
        """One more batch, of which this rank had ``size`` images."""
        self.totals.append(loss.total)
        self.weights.append(loss.weight)
        self.sizes.append(size)

    def over(self, ranks: Ranks) -> EpochSums:
        """The same of whole batches, as plain numbers; this waits for the device and for the other ranks."""
        if not self.sizes:
            return self
        columns = torch.tensor([_read(self.totals), _read(self.weights), self.sizes], dtype=torch.float64)
        totals, weights, sizes = ranks.all_reduce_sum(columns).tolist()
        return EpochSums(totals, weights, [int(size) for size in sizes], [*_read(self.norms)], self.seconds)

    def stats(self, *, may_skip: bool = False) -> EpochStats:
        """The means over what was added on this rank.

        Args:
            may_skip: whether an update whose gradient is not finite was left out by fp16's scaler.
        """
        norms = _read(self.norms)
        counted = [norm for norm in norms if math.isfinite(norm)] if may_skip else norms
        return EpochStats(
            loss=sum(_read(self.totals)) / sum(_read(self.weights)),
            grad_norm=sum(counted) / len(counted) if counted else 0.0,
            images_per_second=sum(self.sizes) / self.seconds,
            num_skipped=len(norms) - len(counted),
        )

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """Of all ranks together, as plain data for a file."""
        whole = self.over(ranks)
        return {
            "totals": whole.totals,
            "weights": whole.weights,
            "sizes": whole.sizes,
            "norms": whole.norms,
            "seconds": whole.seconds,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], ranks: Ranks) -> EpochSums:
        """As they were when ``state_dict`` was called; the main rank stands for what all had done."""
        columns: list[list[Any]] = [list(state[name]) for name in ("totals", "weights", "sizes")]
        if not ranks.is_main:
            columns = [[0] * len(column) for column in columns]
        totals, weights, sizes = columns
        return cls(totals, weights, sizes, list(state["norms"]), state["seconds"])


def _read(values: Sequence[Number]) -> list[float]:
    """As plain numbers; waits for the device once."""
    on_device = [value for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(on_device).tolist() if on_device else [])
    return [next(read) if isinstance(value, Tensor) else value for value in values]
