"""The functions that compute the metrics; their names, directions and ranges are in ``metric_names``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
# float64 [...]: one value per split.
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """How often each class occurs, of one split or of several at once.

    Attributes:
        truth: samples of each class, int64 [..., C].
        predicted: samples that were predicted as the class, int64 [..., C].
        hits: samples of the class that were predicted as it, int64 [..., C].
    """

    truth: Integers
    predicted: Integers
    hits: Integers

    @classmethod
    def of(cls, confusion: Integers) -> ClassCounts:
        """Of confusion matrices, int64 [..., C, C], with the true classes in rows."""
        return cls(confusion.sum(axis=-1), confusion.sum(axis=-2), np.diagonal(confusion, axis1=-2, axis2=-1))

    @property
    def total(self) -> Values:
        """Number of samples, float64 [...]."""
        return np.asarray(self.truth.sum(axis=-1), dtype=np.float64)


def accuracy(counts: ClassCounts) -> Values:
    """Share of the samples whose class was predicted correctly."""
    return _share(counts.hits.sum(axis=-1), counts.total)


def macro_f1(counts: ClassCounts) -> Values:
    """Mean F1 over the classes that occur among the true or the predicted ones."""
    return _mean_share(2 * counts.hits, counts.predicted + counts.truth)


def balanced_accuracy(counts: ClassCounts) -> Values:
    """Mean recall over the classes that occur among the true ones."""
    return _mean_share(counts.hits, counts.truth)


def cohen_kappa(counts: ClassCounts) -> Values:
    """Cohen's kappa: agreement beyond chance (Cohen, 1960); 0 if chance alone would always agree."""
    by_chance = (counts.predicted * counts.truth).sum(axis=-1) / counts.total**2
    return _share(accuracy(counts) - by_chance, 1 - by_chance)


def matthews(counts: ClassCounts) -> Values:
    """Matthews correlation for several classes (Gorodkin, 2004); 0 if only one class occurs or is predicted."""
    total, hits = counts.total, counts.hits.sum(axis=-1)
    truth, predicted = counts.truth.astype(np.float64), counts.predicted.astype(np.float64)
    spread = (total**2 - (truth**2).sum(axis=-1)) * (total**2 - (predicted**2).sum(axis=-1))
    return _share(hits * total - (truth * predicted).sum(axis=-1), np.sqrt(spread))


def _share(part: npt.ArrayLike, whole: npt.ArrayLike) -> Values:
    """The quotient; 0 if the denominator is 0."""
    numerator, denominator = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator != 0)


def _mean_share(parts: Integers, wholes: Integers) -> Values:
    """Mean of the quotients over the classes whose denominator is not 0."""
    return _share(_share(parts, wholes).sum(axis=-1), (wholes > 0).sum(axis=-1))


def top_5(ranks: Integers, losses: Floats) -> float:
    """Share of the samples whose true class is among the five with the highest probability.

    Args:
        ranks: number of classes with a higher probability than the true one, int64 [N].
        losses: not used, float [N].
    """
    return float(np.mean(ranks < 5))


def log_loss(ranks: Integers, losses: Floats) -> float:
    """Mean cross-entropy in nats, without label smoothing; the arguments are those of ``top_5``."""
    return float(np.mean(losses))


def auroc(labels: Integers, probabilities: Floats) -> float:
    """Area under the ROC curve, one class against the rest: the mean over the classes that occur.

    Args:
        labels: class indices, int64 [N].
        probabilities: float [N, C].

    Returns:
        The mean; NaN if only one class occurs.

    Source: Mann and Whitney (1947): the share of pairs (positive, negative) in the right order; ties count half.
    """
    areas = []
    for index in np.unique(labels):
        positive = labels == index
        num_positive, num_negative = int(positive.sum()), int((~positive).sum())
        if num_negative:
            rank_sum = _mean_ranks(probabilities[:, index])[positive].sum()
            areas.append((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))
    return float(np.mean(areas)) if areas else float("nan")


def average_precision(labels: Integers, probabilities: Floats) -> float:
    """Average precision, one class against the rest: the mean over the classes that occur; arguments as ``auroc``.

    The precision at each threshold, weighted by the recall that it adds.
    """
    values = []
    for index in np.unique(labels):
        hits, chosen = _counts_by_threshold(labels == index, probabilities[:, index])
        values.append(np.sum(np.diff(hits, prepend=0) * hits / chosen) / hits[-1])
    return float(np.mean(values))


def sensitivity_at(specificity: float, labels: Integers, probabilities: Floats) -> float:
    """The highest sensitivity at a threshold with at least the given specificity.

    Args:
        specificity: the lowest allowed specificity, from 0 to 1.
        labels: int64 [N]; 1 is the positive class.
        probabilities: float [N, 2].
    """
    if len(np.unique(labels)) < 2:
        return float("nan")
    hits, chosen = _counts_by_threshold(labels == 1, probabilities[:, 1])
    false_alarms = chosen - hits
    allowed = false_alarms / false_alarms[-1] <= 1 - specificity + 1e-12
    return float(hits[allowed].max(initial=0) / hits[-1])


def _counts_by_threshold(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[Integers, Integers]:
    """How many positive samples, and how many of all, have at least each score that occurs; the highest score first."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of those with the same score
    return np.cumsum(positive[order])[last], last + 1


def _mean_ranks(values: Floats) -> Values:
    """Ranks from 1, float64 [N]; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Values = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return mean_ranks


# The functions by what they need. Those of counts take several splits at once, as a bootstrap draws them.
OF_COUNTS: dict[str, Callable[[ClassCounts], Values]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
    "cohen_kappa": cohen_kappa,
    "matthews": matthews,
}
OF_SAMPLES: dict[str, Callable[[Integers, Floats], float]] = {"top_5": top_5, "log_loss": log_loss}
OF_PROBABILITIES: dict[str, Callable[[Integers, Floats], float]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "sensitivity_at_90": partial(sensitivity_at, 0.90),
    "sensitivity_at_95": partial(sensitivity_at, 0.95),
    "sensitivity_at_99": partial(sensitivity_at, 0.99),
}
