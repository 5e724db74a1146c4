"""Cross-validation of the head on the frozen network: folds that groups and copies never cross, repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ftexp.errors import ConfigError
from ftexp.evaluation.intervals import drawn_times
from ftexp.evaluation.scores import ScoreKeeper, Scores
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.metric_names import METRICS
from ftexp.probe.features import Features
from ftexp.probe.group_folds import group_folds
from ftexp.probe.out_of_fold import fit_head
from ftexp.progress_lines import ProgressLines

# Resamples of the groups for the intervals; fewer for metrics that sort probabilities.
NUM_RESAMPLES, FEW_RESAMPLES = 1_000, 200

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FoldScores:
    """The scores of one held-out fold.

    Attributes:
        repeat, fold: numbers from 0.
        rows: int64 [M], the held-out samples.
        scores: of these samples, in this order.
    """

    repeat: int
    fold: int
    rows: Integers
    scores: Scores


def draw_folds(features: Features, num_folds: int, seed: int) -> list[Integers]:
    """Cut the samples into folds with similar shares of the classes; no group is in two folds.

    Args:
        features: N samples with labels and groups.
        num_folds: at least 2.
        seed: of the order of samples and groups.

    Returns:
        The indices of the samples of each fold.

    Raises:
        ConfigError: if there are fewer groups than folds, or a class has fewer than two groups.
    """
    from sklearn.model_selection import StratifiedKFold  # takes a second

    labels, groups = features.labels.numpy(), features.groups.numpy()
    if features.num_groups < num_folds:
        raise ConfigError(
            f"probe.folds={num_folds} is not possible: groups and copies leave {features.num_groups} independent "
            "images. Set fewer folds."
        )
    if (largest := np.bincount(labels).max()) < num_folds:
        raise ConfigError(f"probe.folds={num_folds} is not possible: no class has more than {largest} images.")
    few = [k for k in range(len(features.classes)) if len(np.unique(groups[labels == k])) < 2]
    if few:
        raise ConfigError(
            f"{_in_one_group(features, few)}, so a head of the other images cannot know the class. Add images of other "
            "groups, or leave the class out."
        )
    if features.num_groups == len(labels) and np.bincount(labels).min() >= num_folds:
        cuts = StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels)
        return [held for _, held in cuts]
    return group_folds(labels, groups, num_folds, seed)


def _in_one_group(features: Features, classes: Sequence[int]) -> str:
    """What the images are of classes that are in one group each."""
    counts = np.bincount(features.labels.numpy(), minlength=len(features.classes))
    ones = [features.classes[k] for k in classes if counts[k] == 1]
    others = [features.classes[k] for k in classes if counts[k] > 1]
    told = [f"No image of {features.classes[k]} is left" for k in classes if counts[k] == 0]
    if others:
        told.append(f"All images of {', '.join(others)} in train and val are of one group or copies of one image")
    if ones:
        told.append(
            f"{', '.join(ones)} {'has one image' if len(ones) == 1 else 'have one image each'} in train and val"
        )
    return ", and ".join(told)


def draw_outer_folds(features: Features, num_folds: int, seed: int) -> list[Integers]:
    """Folds by ``draw_folds`` whose rests can be cut once more, to choose by what is not trained on.

    Args:
        features: N samples with labels and groups; their values are not used.
        num_folds: at least 2.
        seed: of the order of samples and groups.

    Raises:
        ConfigError: where ``draw_folds`` does, and if all but one fold are of one group.
    """
    folds, groups = draw_folds(features, num_folds, seed), features.groups.numpy()
    if any(len(np.unique(np.delete(groups, held))) < 2 for held in folds):
        more = "Set more folds, or add" if features.num_groups > num_folds else "Add"
        raise ConfigError(
            f"probe.folds={num_folds} is not possible: groups and copies leave {features.num_groups} independent "
            "images. Without one of the folds only one is left, and none beside it by which the strength or the epoch "
            f"could be chosen. {more} images of other groups."
        )
    return folds


def cross_validate(
    features: Features, num_folds: int, num_repeats: int, seed: int, names: Sequence[str]
) -> Iterator[FoldScores]:
    """Train a head without each fold and score it on the fold; repeats draw new folds.

    Strength and temperature are chosen within the training part of each fold, so the fold has no say in them.

    Args:
        features: the samples.
        num_folds: at least 2.
        num_repeats: at least 1.
        seed: of the first repeat; the next ones count up.
        names: the metrics that will be asked for.

    Raises:
        ConfigError: if the folds cannot be cut.
    """
    progress = ProgressLines("folds", "trained and scored", "heads", num_folds * num_repeats)
    for repeat in range(num_repeats):
        for fold, held in enumerate(draw_outer_folds(features, num_folds, seed + repeat)):
            rest = np.setdiff1d(np.arange(len(features.labels)), held)
            scores = score_head(features.take(rest), features.take(held)).needed_for(names)
            progress.at(repeat * num_folds + fold + 1)
            yield FoldScores(repeat, fold, held, scores)


def score_head(seen: Features, unseen: Features) -> Scores:
    """The scores of some samples, in their order, by a head of others.

    Args:
        seen: what the head is trained on.
        unseen: what it is scored on.
    """
    keeper = ScoreKeeper(len(seen.classes))
    keeper.update(fit_head(seen).logits(unseen.values), unseen.labels)
    return keeper.compute(ONE_PROCESS)[0]


def pooled(folds: Sequence[FoldScores]) -> Scores:
    """The scores of all folds and repeats together."""
    return joined([one.scores for one in folds])


def joined(parts: Sequence[Scores]) -> Scores:
    """Several scores of the same classes as one."""
    logits = [one.logits for one in parts if one.logits is not None]
    return Scores(
        np.concatenate([one.labels for one in parts]),
        np.concatenate([one.predictions for one in parts]),
        np.concatenate([one.ranks for one in parts]),
        np.concatenate([one.losses for one in parts]),
        parts[0].num_classes,
        np.concatenate(logits) if len(logits) == len(parts) else None,
    )


def group_intervals(
    scores: Scores, groups: Integers, names: Sequence[str], seed: int
) -> dict[str, tuple[float, float]]:
    """95 % intervals of metrics over resampled groups; the arguments are those of ``group_draws``.

    They tell how far another set of images would move the score, and not what another training set would.
    """
    return {name: interval_of(values) for name, values in group_draws(scores, groups, names, seed).items()}


def interval_of(draws: Floats) -> tuple[float, float]:
    """The middle 95 % of draws, without those that are NaN."""
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)


def group_draws(scores: Scores, groups: Integers, names: Sequence[str], seed: int) -> dict[str, Floats]:
    """Metrics of resamples of whole groups with replacement (Efron, 1979), with all their repeats.

    Scores of the same samples get the same resamples, so the differences of their draws are those of pairs.

    Args:
        scores: N scored samples, those of all repeats.
        groups: int64 [N].
        names: names of metrics in ``METRICS``.
        seed: of the resampling.

    Returns:
        For each metric float64 [R]; R is smaller for metrics that sort probabilities.
    """
    draws = {}
    for name in names:
        number = FEW_RESAMPLES if METRICS[name].needs == "probabilities" else NUM_RESAMPLES
        drawn = drawn_times(groups, number, seed)
        draws[name] = np.concatenate([scores.resampled(name, times) for times in drawn])
    return draws
