"""``result.json``: a whole run in one small file, for programs."""

from __future__ import annotations

from ftexp.evaluation.best import Best
from ftexp.evaluation.intervals import accuracy_interval, bootstrap_intervals
from ftexp.evaluation.scores import Scores


def best_entry(best: Best) -> dict[str, object]:
    """The best epoch with its validation metrics and their 95 % intervals by bootstrap."""
    scores, names = best.scores, list(best.record.val)
    intervals = bootstrap_intervals(scores, names)
    return {
        "epoch": best.record.epoch,
        "wise_ft_alpha": best.alpha,
        "val_loss": scores.loss,
        **{f"val_{name}": value for name, value in scores.metrics(names).items()},
        **{f"val_{name}_ci95": list(interval) for name, interval in intervals.items()},
    }


def score_entry(scores: Scores, names: list[str]) -> dict[str, object]:
    """Metrics of the test split with their 95 % intervals: the accuracy's by formula, the others' by bootstrap."""
    intervals = bootstrap_intervals(scores, names)
    intervals["accuracy"] = accuracy_interval(scores.num_correct, scores.num_samples)
    return {
        "loss": scores.loss,
        **scores.metrics(names),
        **{f"{name}_ci95": list(interval) for name, interval in intervals.items()},
        "num_samples": scores.num_samples,
    }
