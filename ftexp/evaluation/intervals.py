"""How far a score can be trusted: bootstrap intervals, and the smallest difference that a split can show."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ftexp.evaluation.metric_names import METRICS
from ftexp.evaluation.metrics import OF_CONFUSION, Integers
from ftexp.evaluation.scores import Scores

log = logging.getLogger(__name__)

NUM_RESAMPLES = 2_000
# Of metrics that sort probabilities: at least this many, and no more than sort so many probabilities in all.
MIN_RESAMPLES = 200
MAX_SORTED = 50_000_000
# Cells of the confusion matrices that are in memory at once.
MAX_CELLS = 4_000_000
# Two runs are told apart on the same images by the sign test on those where only one of them is right. Even when all of
# these speak for the same run it takes six: two-sided p = 2 x 0.5 ** 6 = 0.03, where five give 0.06.
MIN_DISAGREEMENTS = 6
# A validation split that cannot show a difference as small as this is called too small.
WANTED_DIFFERENCE = 0.02

Interval = tuple[float, float]


def bootstrap_intervals(scores: Scores, names: Sequence[str], seed: int = 0) -> dict[str, Interval]:
    """95 % intervals of metrics, by resampling the split with replacement (Efron, 1979).

    Args:
        names: of ``METRICS``.

    Returns:
        Name -> (low, high).
    """
    of_confusion = [name for name in names if METRICS[name].needs == "confusion"]
    values: dict[str, npt.NDArray[np.float64]] = {}
    if of_confusion:
        # Drawing samples is drawing cells of the confusion matrix, so the samples themselves are not needed.
        parts = list(_drawn_confusions(scores.confusion, seed))
        values = {name: np.concatenate([OF_CONFUSION[name](part) for part in parts]) for name in of_confusion}
    for name in names:
        if name not in values:
            rng = np.random.default_rng(seed)
            rows = (rng.integers(0, scores.num_samples, scores.num_samples) for _ in range(num_resamples(scores, name)))
            values[name] = np.array([scores.take(chosen).metric(name) for chosen in rows])
    return {name: _middle_95_percent(values[name]) for name in names}


def num_resamples(scores: Scores, metric: str) -> int:
    """How many times to resample: fewer where a metric sorts many probabilities, by their number alone."""
    if METRICS[metric].needs != "probabilities":
        return NUM_RESAMPLES
    return int(np.clip(MAX_SORTED / (scores.num_samples * scores.num_classes), MIN_RESAMPLES, NUM_RESAMPLES))


def accuracy_interval(num_correct: int, num_samples: int) -> Interval:
    """The 95 % interval of an accuracy (Wilson, 1927), which stays sensible near 0 and 1."""
    interval = binomtest(num_correct, num_samples).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


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


def _drawn_confusions(confusion: Integers, seed: int) -> Iterator[Integers]:
    """Confusion matrices of resampled splits, [R, C, C] at a time, in parts that stay small."""
    truth, predicted = np.nonzero(confusion)
    counts = confusion[truth, predicted]
    num_samples, num_classes = int(counts.sum()), len(confusion)
    draws = np.random.default_rng(seed).multinomial(num_samples, counts / num_samples, size=NUM_RESAMPLES)
    step = max(1, MAX_CELLS // num_classes**2)
    for start in range(0, NUM_RESAMPLES, step):
        part = draws[start : start + step]
        matrices = np.zeros((len(part), num_classes, num_classes), dtype=np.int64)
        matrices[:, truth, predicted] = part
        yield matrices


def _middle_95_percent(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
