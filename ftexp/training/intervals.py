"""How far a score can be trusted: bootstrap intervals, and the smallest difference that a split can show."""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

NUM_RESAMPLES = 2_000
# Two runs are told apart on the same images by the sign test on those where only one of them is right. Even when all of
# these speak for the same run it takes six: two-sided p = 2 x 0.5 ** 6 = 0.03, where five give 0.06.
MIN_DISAGREEMENTS = 6
# A validation split that cannot show a difference as small as this is called too small.
WANTED_DIFFERENCE = 0.02

Interval = tuple[float, float]


def bootstrap_intervals(confusion: npt.NDArray[np.int64], seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of accuracy and macro F1, by resampling the split with replacement (Efron, 1979).

    Drawing samples is drawing cells of the confusion matrix, so the samples themselves are not needed.

    Args:
        confusion: int64 [classes, classes], rows are the truth.

    Returns:
        ``accuracy`` and ``macro_f1`` -> (low, high).
    """
    truth, predicted = np.nonzero(confusion)
    counts = confusion[truth, predicted]
    num_samples, num_classes = int(counts.sum()), len(confusion)
    draws = np.random.default_rng(seed).multinomial(num_samples, counts / num_samples, size=NUM_RESAMPLES)
    right = truth == predicted
    accuracies = draws[:, right].sum(axis=1) / num_samples
    f1 = [_macro_f1(truth, predicted, draw, num_classes) for draw in draws]
    return {"accuracy": _middle_95_percent(accuracies), "macro_f1": _middle_95_percent(np.array(f1))}


def smallest_difference(num_samples: int) -> float:
    """The smallest difference in accuracy between two runs that a split of this size can show at the 5 % level."""
    return min(1.0, MIN_DISAGREEMENTS / num_samples)


@cache
def warn_if_too_small(num_val: int) -> None:
    """Say so when the validation split cannot tell apart runs that differ by two points; once for all trials."""
    difference = smallest_difference(num_val)
    if difference > WANTED_DIFFERENCE:
        log.warning(
            "The validation split has %d images: a difference of less than %.1f points in accuracy between two runs may"
            " be chance. A larger data.val_fraction shows smaller ones.",
            num_val,
            100 * difference,
        )


def _macro_f1(
    truth: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], num_classes: int
) -> float:
    """Mean F1 over the classes that occur, from counts of (truth, predicted) cells."""
    right = truth == predicted
    hits = np.bincount(truth[right], counts[right], num_classes)
    both = np.bincount(truth, counts, num_classes) + np.bincount(predicted, counts, num_classes)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def _middle_95_percent(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
