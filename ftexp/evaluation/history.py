"""What one epoch did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: from 1 over the whole run, not over the phase.
        val: metric -> its value on validation.
        grad_norm: mean over the epoch's steps, before clipping.
        head_change: distance of the head from where the phase began, as a share of its norm then.
        lr_head, lr_backbone: rates at the start of the epoch; of the backbone, the highest block's; None: all frozen.
        images_per_second: training alone, without validation.
        seconds: training and validation.
        best: whether this epoch's weights became the best so far.
    """

    phase: str
    epoch: int
    train_loss: float
    val_loss: float
    val: dict[str, float]
    grad_norm: float
    head_change: float
    lr_head: float
    lr_backbone: float | None
    images_per_second: float
    seconds: float
    best: bool

    def as_row(self) -> dict[str, Any]:
        """The record as columns, each metric as ``val_NAME``."""
        row: dict[str, Any] = {}
        for column in fields(self):
            value = getattr(self, column.name)
            row |= {f"val_{name}": one for name, one in value.items()} if column.name == "val" else {column.name: value}
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> EpochRecord:
        """The record of which ``as_row`` gave the columns."""
        scores = {name for name in row if name.startswith("val_") and name != "val_loss"}
        val = {name.removeprefix("val_"): value for name, value in row.items() if name in scores}
        return cls(**{name: value for name, value in row.items() if name not in scores}, val=val)

    def value(self, column: str) -> float:
        """A column of numbers, ``val_loss`` or ``val_NAME`` of a metric among them."""
        return float(self.as_row()[column])


class Observer(Protocol):
    """Follows a run, and may end it."""

    def __call__(self, record: EpochRecord) -> None:
        """To be called after every epoch."""

    def before_epoch(self) -> None:
        """To be called where another epoch is to come; what it raises ends the run."""
