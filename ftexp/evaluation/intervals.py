"""The uncertainty of scores: bootstrap intervals, and the smallest difference that a split can show."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ftexp.evaluation.metrics import OF_COUNTS, ClassCounts, Integers
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS

log = logging.getLogger(__name__)

NUM_RESAMPLES = 2_000
# Of the standard normal distribution.
QUANTILE_975 = 1.959963984540054
# Resamples for metrics that sort probabilities: at least MIN_RESAMPLES, and beyond that only as many as sort no more
# than this number of probabilities in all.
MIN_RESAMPLES = 200
MAX_SORTED = 50_000_000
# At most this many numbers of resampled splits are in memory at once, but always some resamples.
MAX_DRAWN, MIN_AT_ONCE = 2_000_000, 8
# Two runs are compared on the same images by the sign test over the images where only one of them is right. It takes at
# least six such images, even if all favour the same run: two-sided p = 2 x 0.5 ** 6 = 0.03; five give 0.06.
MIN_DISAGREEMENTS = 6
# There is a warning if the validation set is too small to show a difference in accuracy of this size.
WANTED_DIFFERENCE = 0.02

Interval = tuple[float, float]


def bootstrap_intervals(
    scores: Scores, names: Sequence[str], seed: int = 0, *, most: int | None = None
) -> dict[str, Interval]:
    """95 % intervals of metrics, by resampling the split with replacement (Efron, 1979).

    Args:
        scores: the scores of the split.
        names: names of metrics in ``METRICS``.
        seed: seed of the resampling.
        most: the number of resamples for a metric that sorts probabilities, which takes milliseconds each; None:
            ``num_resamples``.

    Returns:
        The interval (low, high) of each metric.
    """
    of_counts = [name for name in names if METRICS[name].needs == "counts"]
    values: dict[str, npt.NDArray[np.float64]] = {}
    if of_counts:
        parts = [{name: OF_COUNTS[name](drawn) for name in of_counts} for drawn in _drawn_counts(scores, seed)]
        values = {name: np.concatenate([part[name] for part in parts]) for name in of_counts}
    for name in names:
        if name not in values:
            number = num_resamples(scores, name)
            if most is not None and METRICS[name].needs == "probabilities":
                number = min(most, number)
            drawn = drawn_times(np.arange(scores.num_samples), number, seed)
            values[name] = np.concatenate([scores.resampled(name, times) for times in drawn])
    return {name: _middle_95_percent(values[name]) for name in names}


def drawn_times(groups: Integers, number: int, seed: int) -> Iterator[Integers]:
    """How often resamples have each sample, int64 [N, R], in parts that fit into memory.

    Args:
        groups: int64 [N]; the groups are drawn with replacement, each with all its samples.
        number: of the resamples.
        seed: of the resampling; a larger number of resamples begins with those of a smaller one.
    """
    rng, num_groups = np.random.default_rng(seed), int(groups.max()) + 1
    step = max(MIN_AT_ONCE, MAX_DRAWN // len(groups))
    for start in range(0, number, step):
        times = np.empty((len(groups), min(step, number - start)), np.int64)
        for column in range(times.shape[1]):
            drawn = rng.integers(0, num_groups, num_groups)
            times[:, column] = np.bincount(drawn, minlength=num_groups)[groups]
        yield times


def num_resamples(scores: Scores, metric: str) -> int:
    """Number of resamples; it is lower for metrics that sort many probabilities."""
    if METRICS[metric].needs != "probabilities":
        return NUM_RESAMPLES
    return int(np.clip(MAX_SORTED / (scores.num_samples * scores.num_classes), MIN_RESAMPLES, NUM_RESAMPLES))


def accuracy_interval(num_correct: int, num_samples: int) -> Interval:
    """The 95 % interval of an accuracy by Wilson's formula (1927), which stays valid near 0 and 1."""
    share, squared = num_correct / num_samples, QUANTILE_975**2 / num_samples
    centre = share + squared / 2
    half = math.sqrt(squared * (share * (1 - share) + squared / 4))
    low = 0.0 if num_correct == 0 else (centre - half) / (1 + squared)
    high = 1.0 if num_correct == num_samples else (centre + half) / (1 + squared)
    return low, high


def smallest_difference(num_samples: int) -> float:
    """The smallest difference in accuracy between two runs that is significant (5 %) on a split of this size."""
    return min(1.0, MIN_DISAGREEMENTS / num_samples)


@cache
def warn_if_too_small(num_val: int) -> None:
    """Warn if the validation set cannot distinguish runs that differ by two points; once per process."""
    difference = smallest_difference(num_val)
    if difference > WANTED_DIFFERENCE:
        log.warning(
            "The validation split has %d images: a difference of less than %.1f points in accuracy between two runs may"
            " be chance. A larger data.val_fraction shows smaller ones.",
            num_val,
            100 * difference,
        )


def _drawn_counts(scores: Scores, seed: int) -> Iterator[ClassCounts]:
    """The counts of resampled splits, in parts that fit into memory.

    Samples of one class that were taken for the same class are alike, so that only their number is drawn.
    """
    num_classes, num_samples = scores.num_classes, scores.num_samples
    cells, number = np.unique(scores.labels * num_classes + scores.predictions, return_counts=True)
    truth, predicted = np.divmod(cells, num_classes)
    rng, step = np.random.default_rng(seed), max(1, MAX_DRAWN // max(len(cells), num_classes))
    for start in range(0, NUM_RESAMPLES, step):
        draws = rng.multinomial(num_samples, number / num_samples, size=min(step, NUM_RESAMPLES - start))
        right = draws * (truth == predicted)
        yield ClassCounts(
            *(_sums(of, by, num_classes) for of, by in ((draws, truth), (draws, predicted), (right, truth)))
        )


def _sums(values: Integers, classes: Integers, num_classes: int) -> Integers:
    """Sums of the values of each class, [R, K] and [K] -> int64 [R, C]."""
    sums = [np.bincount(classes, weights=row, minlength=num_classes) for row in values]
    return np.stack(sums).astype(np.int64)


def _middle_95_percent(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
