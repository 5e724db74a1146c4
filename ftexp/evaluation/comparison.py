"""Whether one classifier is better than another on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ftexp.evaluation.gate import mcnemar
from ftexp.evaluation.intervals import Interval, drawn_times, num_resamples
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two classifiers on the same images.

    Attributes:
        first, second: their places in what was compared.
        gained, lost: images that only the second gets right, and only the first.
        p_value: of McNemar's exact test, two-sided: the chance of so uneven a share of these if both were equally good.
        adjusted: the p-value times what it takes to make so many comparisons at once (Holm, 1979).
        difference: of the metric, the second's less the first's.
        interval: 95 % of it, by paired bootstrap; it holds 0 where the metric does not tell them apart.
    """

    first: int
    second: int
    gained: int
    lost: int
    p_value: float
    adjusted: float
    difference: float
    interval: Interval


def compare(all_scores: Sequence[Scores], metric: str = "accuracy", seed: int = 0) -> list[Comparison]:
    """Compare every pair.

    Args:
        all_scores: of the same images in the same order.
        metric: of ``METRICS``, whose difference gets an interval.
    """
    found = [
        _pair(first, second, all_scores, metric, seed) for first, second in combinations(range(len(all_scores)), 2)
    ]
    adjusted = holm([one.p_value for one in found])
    return [replace(one, adjusted=value) for one, value in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in the same order (Holm, 1979)."""
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted


def _pair(first: int, second: int, all_scores: Sequence[Scores], metric: str, seed: int) -> Comparison:
    one, other = all_scores[first], all_scores[second]
    assert np.array_equal(one.labels, other.labels), "classifiers are compared on the same images"
    right_one, right_other = one.predictions == one.labels, other.predictions == other.labels
    gained, lost = int(np.sum(right_other & ~right_one)), int(np.sum(right_one & ~right_other))
    p_value = min(1.0, 2 * min(mcnemar(gained, lost), mcnemar(lost, gained)))
    return Comparison(
        first,
        second,
        gained,
        lost,
        p_value,
        p_value,
        other.metric(metric) - one.metric(metric),
        _interval(one, other, metric, seed),
    )


def _interval(one: Scores, other: Scores, metric: str, seed: int) -> Interval:
    number = min(num_resamples(one, metric), 400 if METRICS[metric].needs == "probabilities" else 2000)
    differences = np.concatenate(
        [
            other.resampled(metric, times) - one.resampled(metric, times)
            for times in drawn_times(np.arange(one.num_samples), number, seed)
        ]
    )
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return float(low), float(high)
