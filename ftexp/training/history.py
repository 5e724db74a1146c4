"""What one epoch did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: from 1 over the whole run, not over the phase.
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
    val_accuracy: float
    val_macro_f1: float
    grad_norm: float
    head_change: float
    lr_head: float
    lr_backbone: float | None
    images_per_second: float
    seconds: float
    best: bool


class Observer(Protocol):
    """Follows a run, and may end it."""

    def __call__(self, record: EpochRecord) -> None:
        """To be called after every epoch."""

    def before_epoch(self) -> None:
        """To be called where another epoch is to come; what it raises ends the run."""
