"""How well heads on the frozen network score that were trained on more and more of the images: the learning curve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftexp.errors import DataError
from ftexp.evaluation.intervals import MAX_DRAWN, MIN_AT_ONCE
from ftexp.evaluation.metrics import OF_COUNTS
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS
from ftexp.probe.cross_validation import draw_outer_folds, joined, score_head
from ftexp.probe.features import Features
from ftexp.progress_lines import ProgressLines

# Shares of the training part of each fold, the largest first; a share that leaves a class too few groups is left out.
SHARES = tuple(2 ** (-step / 2) for step in range(8))
# The law has three parameters, so fewer sizes would not show whether it holds.
MIN_SIZES = 4
# Groups of a class in the smallest subset, on average.
MIN_GROUPS = 3
NUM_DRAWS = 500
# For metrics that are not computed from counts of classes.
FEW_DRAWS = 200

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The scores of heads by the number of images that they were trained on.

    Attributes:
        sizes: float64 [K], the mean number of training images, rising.
        scores: for each size, the held-out samples of all folds and repeats, in the same order.
        groups: int64 [M], of these samples.
        heads: int64 [M], which of the folds of which repeat a sample was held out in; its heads have seen the others.
        repeats: int64 [M], in which repeat; in each of them, every image was held out once.
        num_images: of all that the folds are cut from.
    """

    sizes: Floats
    scores: tuple[Scores, ...]
    groups: Integers
    heads: Integers
    repeats: Integers
    num_images: int


@dataclass(frozen=True, slots=True)
class Errors:
    """One error by size, and how far it would move with other images and other subsets.

    Attributes:
        sizes: float64 [K].
        values: float64 [K], what is to become small: one minus a score, or a loss.
        draws: float64 [R, K], the same of resampled groups and heads.
        single: float64 [R, K], the same of resampled groups of one repeat: what one set of as many images would show.
        of_one: what one independent sample more or less with an error changes.
    """

    sizes: Floats
    values: Floats
    draws: Floats
    single: Floats
    of_one: float


def choose_shares(features: Features, num_folds: int) -> tuple[float, ...]:
    """The shares of the training part of a fold that leave enough of every class, the smallest first.

    Raises:
        DataError: if they are too few for a curve.
    """
    labels, groups = features.labels.numpy(), features.groups.numpy()
    counts = [len(np.unique(groups[labels == number])) for number in range(len(features.classes))]
    part = (num_folds - 1) / num_folds
    shares = [share for share in SHARES if min(counts) * part * share >= MIN_GROUPS]
    if len(shares) < MIN_SIZES:
        rarest = features.classes[int(np.argmin(counts))]
        needed = int(np.ceil(MIN_GROUPS / part / SHARES[MIN_SIZES - 1]))
        raise DataError(
            f"Too few images for a learning curve: train and val have {min(counts)} independent images of {rarest}, "
            f"and {needed} of each class are needed with probe.folds={num_folds}. Images of one group and copies of "
            "one image count once."
        )
    return tuple(reversed(shares))


def nested_order(features: Features, seed: int) -> list[Integers]:
    """An order of the groups in which every beginning has about the same shares of the classes.

    Args:
        features: N samples.
        seed: of the order.

    Returns:
        The indices of the samples of each group, in this order.
    """
    labels, groups = features.labels.numpy(), features.groups.numpy()
    rng = np.random.default_rng(seed)
    rows_of = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    main = np.array([np.bincount(labels[rows]).argmax() for rows in rows_of])
    place = np.empty(len(rows_of))
    for number in np.unique(main):
        members = rng.permutation(np.flatnonzero(main == number))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return [rows_of[group] for group in np.argsort(place, kind="stable")]


def nested_subsets(features: Features, shares: tuple[float, ...], seed: int) -> Iterator[Integers]:
    """Subsets of whole groups, each of which holds the one before: int64 indices of their samples.

    Args:
        features: the samples.
        shares: of the samples, rising; a subset has the nearest number that whole groups allow, but two
            groups at least.
        seed: of the order in which groups are added.
    """
    order = nested_order(features, seed)
    sizes = np.cumsum([len(rows) for rows in order])
    for share in shares:
        count = max(2, 1 + int(np.abs(sizes - share * sizes[-1]).argmin()))  # a strength is chosen by other groups
        yield np.concatenate(order[:count])


def learning_curve(features: Features, num_folds: int, num_repeats: int, seed: int, metric: str) -> LearningCurve:
    """Train heads on nested subsets of the rest of each fold, and score them on the fold.

    Args:
        features: the samples.
        num_folds: at least 2.
        num_repeats: at least 1; each draws new folds and new subsets.
        seed: of the first repeat; the next ones count up.
        metric: the metric that will be asked for.

    Raises:
        UserError: if there are too few images or groups.
    """
    shares = choose_shares(features, num_folds)
    parts: list[list[Scores]] = [[] for _ in shares]
    counts: list[list[int]] = [[] for _ in shares]
    held_rows: list[Integers] = []
    progress = ProgressLines("curve", "trained and scored the heads of", "folds", num_folds * num_repeats)
    for repeat in range(num_repeats):
        for held in draw_outer_folds(features, num_folds, seed + repeat):
            rest = features.take(np.setdiff1d(np.arange(len(features.labels)), held))
            unseen = features.take(held)
            for number, rows in enumerate(nested_subsets(rest, shares, seed + len(held_rows))):
                parts[number].append(score_head(rest.take(rows), unseen).needed_for([metric]))
                counts[number].append(len(rows))
            held_rows.append(held)
            progress.at(len(held_rows))
    return LearningCurve(
        sizes=np.array([np.mean(one) for one in counts]),
        scores=tuple(joined(one) for one in parts),
        groups=features.groups.numpy()[np.concatenate(held_rows)],
        heads=np.repeat(np.arange(len(held_rows)), [len(held) for held in held_rows]),
        repeats=np.repeat(np.arange(len(held_rows)) // num_folds, [len(held) for held in held_rows]),
        num_images=len(features.labels),
    )


def errors_of(curve: LearningCurve, metric: str, seed: int) -> tuple[Errors, list[Errors]]:
    """The error of a metric by size, and that of the recall of every class.

    Groups and heads are resampled independently and their weights multiplied (the pigeonhole bootstrap, Owen, 2007):
    a sample is scored by several heads, and a head scores many samples. All sizes share a resample, so that what moves
    the whole curve does not move its steps.

    Args:
        curve: the scores.
        metric: the name of a metric in ``METRICS``.
        seed: of the resampling.
    """
    num_draws = NUM_DRAWS if METRICS[metric].needs == "counts" else FEW_DRAWS
    drawn = [_both(curve, np.ones((len(curve.groups), 1), np.int64), metric)]
    singly: list[Floats] = []
    for of_all, of_repeats in _drawn_times(curve, num_draws, seed):
        drawn.append(_both(curve, of_all, metric))
        singly.append(_both(curve, of_repeats, metric))
    values, single = np.concatenate(drawn), np.concatenate(singly)  # [1 + draws, K, 1 + classes], [draws, ...]
    labels = curve.scores[0].labels
    of_class = (len(np.unique(curve.groups[labels == k])) for k in range(curve.scores[0].num_classes))
    counts = [curve.groups.max() + 1, *of_class]
    found = [
        Errors(curve.sizes, values[0, :, k], values[1:, :, k], single[:, :, k], 1 / max(n, 1))
        for k, n in enumerate(counts)
    ]
    return found[0], found[1:]


def _drawn_times(curve: LearningCurve, number: int, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """How often resamples have each sample, of groups and heads, and of the groups of one repeat: int64 [M, R]."""
    rng, step = np.random.default_rng(seed), max(MIN_AT_ONCE, MAX_DRAWN // len(curve.groups))
    num_groups, num_heads = curve.groups.max() + 1, curve.heads.max() + 1
    for start in range(0, number, step):
        both, single = [], []
        for draw in range(start, min(start + step, number)):
            of_groups = np.bincount(rng.integers(0, num_groups, num_groups), minlength=num_groups)[curve.groups]
            of_heads = np.bincount(rng.integers(0, num_heads, num_heads), minlength=num_heads)[curve.heads]
            both.append(of_groups * of_heads)
            single.append(of_groups * (curve.repeats == draw % (curve.repeats.max() + 1)))
        yield np.stack(both, axis=1), np.stack(single, axis=1)


def _both(curve: LearningCurve, times: Integers, metric: str) -> Floats:
    """The errors of the metric and of every class's recall: float64 [R, K, 1 + C]."""
    return np.stack([_errors(scores, times, metric) for scores in curve.scores], axis=1)


def _errors(scores: Scores, times: Integers, metric: str) -> Floats:
    counts = scores.resampled_counts(times)
    with np.errstate(invalid="ignore"):  # a class that was not drawn
        missed = 1 - counts.hits / counts.truth
    values = OF_COUNTS[metric](counts) if metric in OF_COUNTS else scores.resampled(metric, times)
    errors = METRICS[metric].high - values if METRICS[metric].maximize else values
    return np.concatenate([errors[:, None], missed], axis=1)
