"""The best epoch so far: its scores, and the file with its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores

# The arrays of ``Scores``, which have one entry per sample.
ARRAYS = ("labels", "predictions", "ranks", "losses", "logits")


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch with the best weights.

    Attributes:
        record: the epoch.
        scores: the scores of its weights on the validation set.
        checkpoint: the file with its weights.
        alpha: share of the epoch's weights if they were averaged with the starting weights (WiSE-FT); else 1.
    """

    record: EpochRecord
    scores: Scores
    checkpoint: Path
    alpha: float = 1.0

    def state_dict(self) -> dict[str, Any]:
        """The epoch as plain data and tensors."""
        arrays = {name: getattr(self.scores, name) for name in ARRAYS if getattr(self.scores, name) is not None}
        return {
            "record": self.record.as_row(),
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "checkpoint": self.checkpoint.name,
            "alpha": self.alpha,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], folder: Path, num_classes: int) -> Best:
        """Restore what ``state_dict`` returned.

        Args:
            state: the saved state.
            folder: the folder with the file of its weights.
            num_classes: number of classes.
        """
        arrays = {name: state[name].numpy() for name in ARRAYS if name in state}
        if "probabilities" in state:  # instead of logits, in a run that an older version began
            arrays["logits"] = np.log(np.maximum(state["probabilities"].numpy(), np.finfo(np.float32).tiny))
        scores = Scores(num_classes=num_classes, **arrays)
        return cls(EpochRecord.from_row(state["record"]), scores, folder / state["checkpoint"], state["alpha"])
