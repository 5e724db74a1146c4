"""``result.json``: a whole run in one small file, for programs."""

from __future__ import annotations

from ftexp.training.best import Best
from ftexp.training.intervals import bootstrap_intervals
from ftexp.training.metrics import Scores, accuracy_interval


def best_entry(best: Best) -> dict[str, object]:
    """The best epoch with its validation scores and their 95 % intervals."""
    scores = best.scores
    intervals = bootstrap_intervals(scores.confusion)
    return {
        "epoch": best.record.epoch,
        "wise_ft_alpha": best.alpha,
        "val_accuracy": scores.accuracy,
        "val_macro_f1": scores.macro_f1,
        "val_loss": scores.loss,
        "val_accuracy_ci95": list(intervals["accuracy"]),
        "val_macro_f1_ci95": list(intervals["macro_f1"]),
    }


def score_entry(scores: Scores) -> dict[str, object]:
    """Scores of the test split with their 95 % intervals: the accuracy's by formula, macro F1's by bootstrap."""
    return {
        "accuracy": scores.accuracy,
        "accuracy_ci95": list(accuracy_interval(scores.num_correct, scores.num_samples)),
        "macro_f1": scores.macro_f1,
        "macro_f1_ci95": list(bootstrap_intervals(scores.confusion)["macro_f1"]),
        "loss": scores.loss,
        "num_samples": scores.num_samples,
    }
