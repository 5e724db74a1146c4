"""The best epoch so far: what it scored, and where its weights are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ftexp.training.history import EpochRecord
from ftexp.training.metrics import Scores


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the best weights, what they scored on validation, and where they are.

    Attributes:
        alpha: the epoch's share in the weights where they are an average with the run's start; 1: its own alone.
    """

    record: EpochRecord
    scores: Scores
    checkpoint: Path
    alpha: float = 1.0

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors, for a file."""
        return {
            "record": asdict(self.record),
            "loss": self.scores.loss,
            "labels": torch.from_numpy(self.scores.labels),
            "predictions": torch.from_numpy(self.scores.predictions),
            "checkpoint": self.checkpoint.name,
            "alpha": self.alpha,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], folder: Path, num_classes: int) -> Best:
        """As it was when ``state_dict`` was called; its weights are in ``folder``."""
        labels, predictions = state["labels"].numpy(), state["predictions"].numpy()
        scores = Scores.of(state["loss"], labels, predictions, num_classes)
        return cls(EpochRecord(**state["record"]), scores, folder / state["checkpoint"], state["alpha"])
