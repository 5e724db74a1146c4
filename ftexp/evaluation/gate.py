"""The gate: whether a phase improved on the phases before it, by a paired comparison on the validation set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ftexp.config import StageConfig
from ftexp.evaluation.intervals import drawn_times, num_resamples
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS

# A phase without any real effect passes the significance gate in one case of twenty.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of the gate about a phase.

    Attributes:
        kept: whether the phase is kept.
        before: the metric of the best phase before it.
        after: the metric of the phase.
        gained: validation samples that only the later phase classified correctly.
        lost: validation samples that only the earlier phase classified correctly.
        p_value: probability of at least this gain if both are equally good; None if the gate does not test it.
        min_errors: ``stage.min_errors``, if a phase is not begun because fewer validation samples are wrong.
    """

    kept: bool
    before: float
    after: float
    gained: int
    lost: int
    p_value: float | None
    min_errors: int | None = None


def judge(stage: StageConfig, metric: str, before: Scores, after: Scores) -> Verdict:
    """Compare the best epoch of a phase with the best epoch before it.

    Args:
        stage: the settings of the gate.
        metric: the metric to compare; accuracy is tested with McNemar's test, every other one with a paired bootstrap.
        before: the scores of the earlier epoch.
        after: the scores of the later epoch, for the same validation samples in the same order.
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


def best_case(stage: StageConfig, metric: str, before: Scores) -> Verdict:
    """The verdict on a phase after which every validation sample is right, with certainty; no phase can do better.

    If this one would not be kept, none will be: no metric of any resample can be higher. With ``significant`` and
    accuracy that is so if fewer than five samples are wrong (0.5 ** 4 = 0.06, 0.5 ** 5 = 0.03), and with ``better`` if
    the metric cannot rise by more than the margin. Nor is a phase kept if fewer than ``min_errors`` samples are wrong.

    Args:
        stage: the settings of the gate.
        metric: the metric to compare.
        before: the scores of the best epoch so far.
    """
    certain = None
    if before.logits is not None:
        certain = np.where(np.arange(before.num_classes) == before.labels[:, None], 0, -np.inf).astype(np.float32)
    nothing = {name: np.zeros_like(getattr(before, name)) for name in ("ranks", "losses")}
    perfect = replace(before, predictions=before.labels, logits=certain, **nothing)
    verdict = judge(stage, metric, before, perfect)
    too_few = stage.gate != "off" and verdict.gained < stage.min_errors
    return replace(verdict, kept=False, min_errors=stage.min_errors) if too_few else verdict


def mcnemar(gained: int, lost: int) -> float:
    """One-sided exact p-value: if two classifiers are equally good, each is right on half of those where they differ.

    Source: McNemar (1947), in its exact binomial form.
    """
    differing = gained + lost
    ways, at_least = 1, 0  # the ways to choose `losses` of those that differ, and their sum
    for losses in range(lost + 1):
        at_least += ways
        ways = ways * (differing - losses) // (losses + 1)
    p_value: float = at_least / 2**differing
    return p_value


def paired_bootstrap(before: Scores, after: Scores, metric: str, seed: int = 0) -> float:
    """One-sided p-value: the share of resampled validation sets on which the later predictions are no better.

    Args:
        before: the scores of the earlier predictions.
        after: the scores of the later predictions, for the same samples in the same order.
        metric: name of the metric.
        seed: seed of the resampling.
    """
    resamples, sign, worse = num_resamples(before, metric), METRICS[metric].gain(0, 1), 0
    for times in drawn_times(np.arange(before.num_samples), resamples, seed):
        gains = sign * (after.resampled(metric, times) - before.resampled(metric, times))
        worse += int(np.sum(~(gains > 0)))  # NaN, from a resample without one of the classes, is no gain
    return worse / resamples
