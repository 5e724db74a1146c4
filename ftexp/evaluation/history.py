"""The record of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes:
        phase: name of the phase.
        epoch: number of the epoch in the whole run, from 1; 0: the solved head that the run starts from.
        train_loss: mean training loss.
        val_loss: mean validation loss.
        val: value of each metric on the validation set.
        grad_norm: mean gradient norm of the updates, before clipping.
        head_change: distance of the head from its parameters at the beginning of the phase, relative to their norm.
        lr_head: learning rate of the head at the start of the epoch.
        lr_backbone: highest learning rate of a block of the backbone at the start of the epoch; None: all are frozen.
        images_per_second: images per second in training, without validation.
        seconds: duration of training and validation.
        best: whether the weights of this epoch are the best so far.
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
        """The record as a row of columns; each metric is a column ``val_NAME``."""
        row: dict[str, Any] = {}
        for column in fields(self):
            value = getattr(self, column.name)
            row |= {f"val_{name}": one for name, one in value.items()} if column.name == "val" else {column.name: value}
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> EpochRecord:
        """Make a record from the columns that ``as_row`` returned."""
        scores = {name for name in row if name.startswith("val_") and name != "val_loss"}
        val = {name.removeprefix("val_"): value for name, value in row.items() if name in scores}
        return cls(**{name: value for name, value in row.items() if name not in scores}, val=val)

    def value(self, column: str) -> float:
        """The value of a numeric column, such as ``val_loss`` or ``val_NAME`` of a metric."""
        return float(self.as_row()[column])


class Observer(Protocol):
    """Is called during a run, and may end it by raising."""

    def __call__(self, record: EpochRecord) -> None:
        """Is called after every epoch."""

    def before_epoch(self) -> None:
        """Is called before every epoch but the first."""
