"""The sums that a training epoch collects batch by batch, and their means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ftexp.machine.distributed import Ranks
from ftexp.training.losses import LossSum

# A tensor on the device while the epoch runs; a float after it has been read, and in a resumed epoch.
Number = Tensor | float


@dataclass(frozen=True, slots=True)
class EpochStats:
    """Means over one training epoch.

    Attributes:
        loss: mean loss: the sum over all samples, divided by the sum of their weights.
        grad_norm: mean gradient norm over the updates, before clipping.
        images_per_second: images per second in training.
        num_skipped: updates that fp16's scaler skipped because gradients overflowed; they are not in ``grad_norm``.
    """

    loss: float
    grad_norm: float
    images_per_second: float
    num_skipped: int = 0


@dataclass(slots=True)
class EpochSums:
    """The sums of an epoch so far, which are saved so that the epoch can be resumed.

    Attributes:
        totals: the summed loss of this rank's part of each batch.
        weights: the denominator of that loss for each batch.
        sizes: images in this rank's part of each batch.
        norms: the gradient norm before clipping of each update.
        seconds: time up to the last update.
    """

    totals: list[Number] = field(default_factory=list)
    weights: list[Number] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    norms: list[Number] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, loss: LossSum, size: int) -> None:
        """Add a batch, of which this rank had ``size`` images."""
        self.totals.append(loss.total)
        self.weights.append(loss.weight)
        self.sizes.append(size)

    def over(self, ranks: Ranks) -> EpochSums:
        """The sums over all ranks as floats; a collective, which also waits for the device."""
        if not self.sizes:
            return self
        columns = torch.tensor([_read(self.totals), _read(self.weights), self.sizes], dtype=torch.float64)
        totals, weights, sizes = ranks.all_reduce_sum(columns).tolist()
        return EpochSums(totals, weights, [int(size) for size in sizes], [*_read(self.norms)], self.seconds)

    def stats(self, *, may_skip: bool = False) -> EpochStats:
        """The means over all that was added.

        Args:
            may_skip: whether an update whose gradient is not finite was skipped by fp16's scaler.
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
        """The sums over all ranks as plain data; a collective."""
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
        """Restore what ``state_dict`` returned; the main rank takes the sums of all, the others start from zero."""
        columns: list[list[Any]] = [list(state[name]) for name in ("totals", "weights", "sizes")]
        if not ranks.is_main:
            columns = [[0] * len(column) for column in columns]
        totals, weights, sizes = columns
        return cls(totals, weights, sizes, list(state["norms"]), state["seconds"])


def _read(values: Sequence[Number]) -> list[float]:
    """The values as floats; waits for the device once."""
    on_device = [value for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(on_device).tolist() if on_device else [])
    return [next(read) if isinstance(value, Tensor) else value for value in values]
