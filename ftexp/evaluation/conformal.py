"""Saying less and being right more often: sets of classes with a chosen coverage, and when not to answer at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ftexp.errors import DataError
from ftexp.evaluation.calibration import Floats, Integers, fit_temperature, tempered

Method = Literal["lac", "aps"]
METHODS: tuple[Method, ...] = get_args(Method)
FOLDS = 10
# So that an image whose cumulated probability is the threshold itself is in, however the sum was rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class SetsReached:
    """What sets of classes reach on images that their threshold was not chosen on.

    Attributes:
        coverage: share of the images whose class is in their set.
        mean_size: classes in a set, on average.
        share_of_one: share of the sets with a single class.
    """

    coverage: float
    mean_size: float
    share_of_one: float


@dataclass(frozen=True, slots=True)
class AnswersReached:
    """What answering only above a threshold reaches on images that it was not chosen on.

    Attributes:
        num_answered: images that got an answer; ``num_right`` of them the right one.
        num_samples: all images.
    """

    num_answered: int
    num_right: int
    num_samples: int


def class_scores(probabilities: Floats, method: Method) -> npt.NDArray[np.float64]:
    """How little each class of each image conforms to what the network says; a set has those up to a threshold.

    Args:
        probabilities: float [N, C].
        method: ``lac``: 1 - p (Sadinle et al., 2019, arXiv 1609.00451), which gives the smallest sets; ``aps``: the sum
            of the probabilities down to this class's (Romano et al., 2020, arXiv 2006.02544, without their random
            part), whose sets grow on difficult images.

    Returns:
        float64 [N, C].
    """
    values = np.asarray(probabilities, np.float64)
    if method == "lac":
        return 1 - values
    order = np.argsort(-values, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(values, order, axis=1), axis=1)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def conformal_threshold(probabilities: Floats, labels: Integers, coverage: float, method: Method) -> float:
    """The threshold whose sets hold the class of a new image with at least this probability.

    It is the ceil((N + 1) coverage)-th smallest score of the true classes (split conformal prediction, Vovk et al.,
    2005). The promise holds for images of the same kind as these, and on average over them.

    Args:
        probabilities: float [N, C]; ``labels``: int64 [N].

    Raises:
        DataError: when there are too few images for this coverage.
    """
    needed = images_for_coverage(coverage)
    if len(labels) < needed:
        raise DataError(f"A coverage of {coverage:g} takes at least {needed} images, and there are {len(labels)}.")
    of_label = np.sort(class_scores(probabilities, method)[np.arange(len(labels)), labels])
    return float(of_label[_rank(len(labels), coverage) - 1])


def images_for_coverage(coverage: float) -> int:
    """The fewest images with which the threshold of a coverage can be chosen."""
    needed = max(1, math.floor(coverage / (1 - coverage)))
    while _rank(needed, coverage) > needed:
        needed += 1
    return needed


def prediction_sets(probabilities: Floats, threshold: float, method: Method) -> npt.NDArray[np.bool_]:
    """The classes that each image may be: those up to the threshold, and the likeliest in any case.

    Args:
        probabilities: float [N, C].

    Returns:
        bool [N, C].
    """
    sets = class_scores(probabilities, method) <= threshold + _ROUNDING
    sets[np.arange(len(sets)), np.argmax(probabilities, axis=1)] = True
    return sets


def accuracy_threshold(confidences: Floats, correct: npt.NDArray[np.bool_], accuracy: float) -> float:
    """The lowest confidence from which on the answers are right often enough, so that the most images get one.

    Args:
        confidences: float [N], the probability of the predicted class; ``correct``: bool [N].
        accuracy: share of right answers among those that are given.

    Raises:
        DataError: when there is none from which on at least ``images_for_accuracy`` images are answered.

    Source: selective classification (Geifman and El-Yaniv, 2017, arXiv 1705.08500), by the share itself.
    """
    order = np.argsort(-np.asarray(confidences), kind="stable")
    values, right = np.asarray(confidences)[order], np.cumsum(correct[order])
    answered = np.arange(1, len(values) + 1)
    whole = np.append(values[1:] < values[:-1], True)  # images of equal confidence are answered together
    needed = images_for_accuracy(accuracy)
    fits = whole & (answered >= needed) & (right >= accuracy * answered - _ROUNDING)
    if not fits.any():
        raise DataError(
            f"There is no threshold above which {accuracy:g} of the answers are right: at least {needed} of the "
            f"{len(values)} images have to be answered to tell."
        )
    return float(values[np.flatnonzero(fits)[-1]])


def images_for_accuracy(accuracy: float) -> int:
    """The fewest answers among which a single wrong one leaves this accuracy."""
    return math.ceil(1 / (1 - accuracy) - _ROUNDING)


def cross_fitted_sets(
    logits: Floats, labels: Integers, coverage: float, method: Method, folds: int = FOLDS, seed: int = 0
) -> SetsReached:
    """What ``conformal_threshold`` reaches on images it has not seen: those of each fold, chosen on all others.

    The temperature is fitted on the others, too.

    Args:
        logits: float [N, C]; ``labels``: int64 [N].

    Raises:
        DataError: when there are too few images.
    """
    covered, sizes = [], []
    for rest, fold in _parts(len(labels), folds, seed):
        temperature = _temperature(logits[rest], labels[rest])
        threshold = conformal_threshold(tempered(logits[rest], temperature), labels[rest], coverage, method)
        sets = prediction_sets(tempered(logits[fold], temperature), threshold, method)
        covered.append(sets[np.arange(len(fold)), labels[fold]])
        sizes.append(sets.sum(axis=1))
    size = np.concatenate(sizes)
    return SetsReached(float(np.concatenate(covered).mean()), float(size.mean()), float((size == 1).mean()))


def cross_fitted_answers(
    logits: Floats, labels: Integers, accuracy: float, folds: int = FOLDS, seed: int = 0
) -> AnswersReached:
    """What ``accuracy_threshold`` reaches on images it has not seen; see ``cross_fitted_sets``.

    Where the other folds have no such threshold, no image of a fold is answered.
    """
    answered = right = 0
    for rest, fold in _parts(len(labels), folds, seed):
        temperature = _temperature(logits[rest], labels[rest])
        on_rest, on_fold = (tempered(logits[part], temperature) for part in (rest, fold))
        try:
            threshold = accuracy_threshold(on_rest.max(axis=1), on_rest.argmax(axis=1) == labels[rest], accuracy)
        except DataError:
            continue
        chosen = on_fold.max(axis=1) >= threshold
        answered += int(chosen.sum())
        right += int((on_fold.argmax(axis=1) == labels[fold])[chosen].sum())
    return AnswersReached(answered, right, len(labels))


def _parts(size: int, folds: int, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """All rows but those of a fold, and those of the fold."""
    rows = np.random.default_rng(seed).permutation(size)
    for fold in np.array_split(rows, min(folds, size)):
        yield np.setdiff1d(rows, fold), fold


def _temperature(logits: Floats, labels: Integers) -> float:
    """The likeliest one; 1 where there is none."""
    try:
        return fit_temperature(logits, labels)
    except DataError:
        return 1.0


def _rank(num_images: int, coverage: float) -> int:
    return math.ceil((num_images + 1) * coverage - _ROUNDING)
