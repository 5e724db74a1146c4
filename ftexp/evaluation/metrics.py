"""The functions that compute the metrics; their names, directions and ranges are in ``metric_names``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
# How often each of R splits has each sample: whole numbers [N, R] in a float type that holds all their sums exactly, as
# ``exact_floats`` chooses it.
Weights = npt.NDArray[np.floating[Any]]
# Whole numbers up to this one are exact in float32.
EXACT_IN_FLOAT32 = 2**24
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


def top_5(ranks: Integers, losses: Floats, weights: Weights) -> Values:
    """Share of the samples whose true class is among the five with the highest probability.

    Args:
        ranks: number of classes with a higher probability than the true one, int64 [N].
        losses: not used, float [N].
        weights: how often each split has each sample, [N, R].
    """
    return _mean_of_samples(weights[ranks < 5].sum(axis=0), weights)


def log_loss(ranks: Integers, losses: Floats, weights: Weights) -> Values:
    """Mean cross-entropy in nats, without label smoothing; the arguments are those of ``top_5``."""
    return _mean_of_samples(losses @ weights, weights)


def auroc(labels: Integers, probabilities: Floats, weights: Weights) -> Values:
    """Area under the ROC curve, one class against the rest: the mean over the classes that occur.

    Args:
        labels: class indices, int64 [N].
        probabilities: float [N, C].
        weights: how often each split has each sample, [N, R].

    Returns:
        The means, float64 [R]; NaN if only one class occurs.

    Source: Mann and Whitney (1947): the share of pairs (positive, negative) in the right order; ties count half.
    """
    return _mean_over_classes(_area, labels, probabilities, weights)


def average_precision(labels: Integers, probabilities: Floats, weights: Weights) -> Values:
    """Average precision, one class against the rest: the mean over the classes that occur; arguments as ``auroc``.

    The precision at each threshold, weighted by the recall that it adds.
    """
    return _mean_over_classes(_precision, labels, probabilities, weights)


def sensitivity_at(specificity: float, labels: Integers, probabilities: Floats, weights: Weights) -> Values:
    """The highest sensitivity at a threshold with at least the given specificity.

    Args:
        specificity: the lowest allowed specificity, from 0 to 1.
        labels: int64 [N]; 1 is the positive class.
        probabilities: float [N, 2].
        weights: how often each split has each sample, [N, R].
    """
    counts = ThresholdCounts.of(labels == 1, probabilities[:, 1], weights)
    hits = counts.positive_at + counts.positive_above
    false_alarms = counts.all_at + counts.all_above - hits
    with np.errstate(invalid="ignore"):  # a split without negative samples
        allowed = false_alarms / counts.negatives <= 1 - specificity + 1e-12
    found = _share(np.where(allowed, hits, 0).max(axis=0, initial=0), counts.positives)
    return np.where((counts.positives > 0) & (counts.negatives > 0), found, np.nan)


@dataclass(frozen=True, slots=True)
class ThresholdCounts:
    """How many samples lie at and above the scores that positive samples have: int64 [K, R], of several splits.

    Between two such scores no metric changes: no further positive sample is found there.
    """

    positive_at: Integers
    positive_above: Integers
    all_at: Integers
    all_above: Integers
    positives: Integers
    negatives: Integers

    @classmethod
    def of(cls, positive: npt.NDArray[np.bool_], scores: Floats, weights: Weights) -> ThresholdCounts:
        """Count.

        Args:
            positive: bool [N].
            scores: float [N].
            weights: how often each split has each sample, [N, R].
        """
        thresholds, which = np.unique(scores[positive], return_inverse=True)
        # 2k + 1: at threshold k; the even places are between two of them.
        places = np.searchsorted(thresholds, scores, "left") + np.searchsorted(thresholds, scores, "right")
        of_all = sums_by(places, 2 * len(thresholds) + 1, weights)
        of_positive = sums_by(which, len(thresholds), weights[positive])
        up_to, positive_up_to = of_all.cumsum(axis=0), of_positive.cumsum(axis=0)
        total, positives = up_to[-1], of_positive.sum(axis=0)
        return cls(
            of_positive, positives - positive_up_to, of_all[1::2], total - up_to[1::2], positives, total - positives
        )


def exact_floats(weights: Integers) -> Weights:
    """Whole numbers [N, R] for ``sums_by``, in float32 if it holds their sums: a tenth of the time of integers."""
    largest = int(weights.sum(axis=0, dtype=np.int64).max(initial=0))
    return weights.astype(np.float32 if largest < EXACT_IN_FLOAT32 else np.float64)


def sums_by(groups: Integers, number: int, weights: Weights) -> Integers:
    """Sums of the weights of the samples of each group: int64 [N] and [N, R] -> int64 [number, R]."""
    values = torch.from_numpy(weights)
    sums = torch.zeros(number, values.shape[1], dtype=values.dtype)
    return sums.index_add_(0, torch.from_numpy(groups), values).numpy().astype(np.int64)


def _mean_of_samples(sums: npt.ArrayLike, weights: Weights) -> Values:
    """Means from sums over the samples, float64 [R]; NaN for splits without samples."""
    numbers = weights.sum(axis=0)
    return np.where(numbers > 0, _share(sums, numbers), np.nan)


def _mean_over_classes(
    of: Callable[[ThresholdCounts], Values], labels: Integers, probabilities: Floats, weights: Weights
) -> Values:
    """The mean over the classes for which it is defined, one against the rest; NaN where it is for none."""
    total, number = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for index in np.unique(labels):
        values = of(ThresholdCounts.of(labels == index, probabilities[:, index], weights))
        defined = ~np.isnan(values)
        total += np.where(defined, values, 0)
        number += defined
    return np.where(number > 0, _share(total, number), np.nan)


def _area(counts: ThresholdCounts) -> Values:
    """Area under the ROC curve, float64 [R]; NaN without a positive or a negative sample."""
    negative_at, negative_above = counts.all_at - counts.positive_at, counts.all_above - counts.positive_above
    in_order = (counts.positive_at * (counts.negatives - negative_above - negative_at / 2)).sum(axis=0)
    pairs = counts.positives * counts.negatives
    return np.where(pairs > 0, _share(in_order, pairs), np.nan)


def _precision(counts: ThresholdCounts) -> Values:
    """Average precision, float64 [R]; NaN without a positive sample."""
    precision = _share(counts.positive_at + counts.positive_above, counts.all_at + counts.all_above)
    weighted = (counts.positive_at * precision).sum(axis=0)
    return np.where(counts.positives > 0, _share(weighted, counts.positives), np.nan)


# The functions by what they need. All take several splits at once, as a bootstrap draws them.
OF_COUNTS: dict[str, Callable[[ClassCounts], Values]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "balanced_accuracy": balanced_accuracy,
    "cohen_kappa": cohen_kappa,
    "matthews": matthews,
}
OF_SAMPLES: dict[str, Callable[[Integers, Floats, Weights], Values]] = {"top_5": top_5, "log_loss": log_loss}
OF_PROBABILITIES: dict[str, Callable[[Integers, Floats, Weights], Values]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "sensitivity_at_90": partial(sensitivity_at, 0.90),
    "sensitivity_at_95": partial(sensitivity_at, 0.95),
    "sensitivity_at_99": partial(sensitivity_at, 0.99),
}
