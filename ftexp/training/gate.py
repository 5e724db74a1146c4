"""Whether unfreezing more was worth it: two sets of predictions on the same validation samples, compared in pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ftexp.config import StageConfig
from ftexp.training.metrics import Scores, macro_f1

# A phase that changes nothing passes the significance gate in one case of twenty.
SIGNIFICANCE = 0.05
RESAMPLES = 2000


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
        metric: ``accuracy`` (McNemar's test) or ``macro_f1`` (paired bootstrap) decides.
        before, after: of the same validation samples in the same order.
    """
    assert np.array_equal(before.labels, after.labels), "the gate compares the same samples"
    right_before, right_after = before.predictions == before.labels, after.predictions == after.labels
    gained, lost = int(np.sum(right_after & ~right_before)), int(np.sum(right_before & ~right_after))
    old, new = before.metric(metric), after.metric(metric)
    p_value = None
    if stage.gate == "significant":
        p_value = mcnemar(gained, lost) if metric == "accuracy" else bootstrap_macro_f1(before, after)
        kept = new > old and p_value < SIGNIFICANCE
    else:
        kept = stage.gate == "off" or new > old + stage.margin
    return Verdict(kept, old, new, gained, lost, p_value)


def mcnemar(gained: int, lost: int) -> float:
    """One-sided exact p-value: of the samples on which two classifiers differ, half should go either way.

    Source: McNemar (1947), in its exact binomial form.
    """
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue)


def bootstrap_macro_f1(before: Scores, after: Scores, seed: int = 0) -> float:
    """Share of resampled validation sets on which the later macro F1 is not above the earlier one."""
    rng = np.random.default_rng(seed)
    size = before.num_samples
    worse = 0
    for _ in range(RESAMPLES):
        rows = rng.integers(0, size, size)
        worse += _f1(after, rows) <= _f1(before, rows)
    return worse / RESAMPLES


def _f1(scores: Scores, rows: npt.NDArray[np.int64]) -> float:
    num_classes = len(scores.confusion)
    cells = scores.labels[rows] * num_classes + scores.predictions[rows]
    return macro_f1(np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes))
