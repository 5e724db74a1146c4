"""``result.json``: a whole run in one small file, for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from ftexp.training.fit import Best
from ftexp.training.metrics import Scores, accuracy_interval


def best_entry(best: Best) -> dict[str, object]:
    """The best epoch with its validation scores."""
    scores = best.scores
    return {
        "epoch": best.record.epoch,
        "val_accuracy": scores.accuracy,
        "val_macro_f1": scores.macro_f1,
        "val_loss": scores.loss,
    }


def score_entry(scores: Scores) -> dict[str, object]:
    """Scores of the test split with the 95 % interval of the accuracy."""
    return {
        "accuracy": scores.accuracy,
        "accuracy_ci95": list(accuracy_interval(scores.num_correct, scores.num_samples)),
        "macro_f1": scores.macro_f1,
        "loss": scores.loss,
        "num_samples": scores.num_samples,
    }


def write_result(path: Path, result: Mapping[str, object]) -> None:
    """Write the file whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
