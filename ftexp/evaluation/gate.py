"""Whether unfreezing more was worth it: two sets of predictions on the same validation samples, compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from ftexp.config import StageConfig
from ftexp.evaluation.intervals import num_resamples
from ftexp.evaluation.metric_names import METRICS
from ftexp.evaluation.scores import Scores

# A phase that changes nothing passes the significance gate in one case of twenty.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate decided about a phase, and the numbers behind it.

    Attributes:
        gained, lost: validation samples that only the later phase got right, and only the earlier one.
        p_value: chance of a gain at least this large if the phases were equally good; None: not asked for.
    """

    kept: bool
    before: float
    after: float
    gained: int
    lost: int
    p_value: float | None


def judge(stage: StageConfig, metric: str, before: Scores, after: Scores) -> Verdict:
    """Compare the best of a phase with the best of those before it.

    Args:
        metric: decides; accuracy by McNemar's test, every other by a paired bootstrap.
        before, after: of the same validation samples in the same order.
    """
    assert np.array_equal(before.labels, after.labels), "the gate compares the same samples"
    right_before, right_after = before.predictions == before.labels, after.predictions == after.labels
    gained, lost = int(np.sum(right_after & ~right_before)), int(np.sum(right_before & ~right_after))
    old, new = before.metric(metric), after.metric(metric)
    gain, p_value = METRICS[metric].gain(old, new), None
    if stage.gate == "significant":
        p_value = mcnemar(gained, lost) if metric == "accuracy" else paired_bootstrap(before, after, metric)
        kept = gain > 0 and p_value < SIGNIFICANCE
    else:
        kept = stage.gate == "off" or gain > stage.margin
    return Verdict(kept, old, new, gained, lost, p_value)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided exact p-value: of the samples on which two classifiers differ, half should go either way.

    Source: McNemar (1947), in its exact binomial form.
    """
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def paired_bootstrap(before: Scores, after: Scores, metric: str, seed: int = 0) -> float:
    """Share of resampled validation sets on which the later predictions score no better than the earlier ones."""
    rng = np.random.default_rng(seed)
    size, resamples = before.num_samples, num_resamples(before, metric)
    worse = 0
    for _ in range(resamples):
        rows = rng.integers(0, size, size)
        gain = METRICS[metric].gain(before.take(rows).metric(metric), after.take(rows).metric(metric))
        worse += not gain > 0  # a NaN, of a draw without one of the classes, is no gain
    return worse / resamples
