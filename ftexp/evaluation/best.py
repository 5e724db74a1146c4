"""The best epoch so far: what it scored, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores

# The arrays of ``Scores``, one entry a sample.
ARRAYS = ("labels", "predictions", "ranks", "losses", "probabilities")


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
        arrays = {name: getattr(self.scores, name) for name in ARRAYS if getattr(self.scores, name) is not None}
        return {
            "record": self.record.as_row(),
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "checkpoint": self.checkpoint.name,
            "alpha": self.alpha,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], folder: Path, num_classes: int) -> Best:
        """As it was when ``state_dict`` was called; its weights are in ``folder``."""
        arrays = {name: state[name].numpy() for name in ARRAYS if name in state}
        scores = Scores(num_classes=num_classes, **arrays)
        return cls(EpochRecord.from_row(state["record"]), scores, folder / state["checkpoint"], state["alpha"])
