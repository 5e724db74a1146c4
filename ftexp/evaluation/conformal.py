"""Conformal prediction sets with a chosen coverage, and selective classification with a chosen accuracy."""

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
# A score that equals the threshold except for rounding is not above it.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class SetsReached:
    """Coverage and size of prediction sets on images that their threshold was not chosen on.

    Attributes:
        coverage: the share of images whose class is in their set.
        mean_size: the mean number of classes in a set.
        share_of_one: the share of sets with a single class.
    """

    coverage: float
    mean_size: float
    share_of_one: float


@dataclass(frozen=True, slots=True)
class AnswersReached:
    """The answers above a confidence threshold, on images that the threshold was not chosen on.

    Attributes:
        num_answered: the number of images that get an answer.
        num_right: how many of these answers are right.
        num_samples: the number of all images.
    """

    num_answered: int
    num_right: int
    num_samples: int


def class_scores(probabilities: Floats, method: Method) -> npt.NDArray[np.float64]:
    """The nonconformity score of each class for each image; a prediction set has the classes up to a threshold.

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
    """The threshold whose sets contain the true class of a new image with at least the given probability.

    It is the ceil((N + 1) coverage)-th smallest score of the true classes (split conformal prediction, Vovk et al.,
    2005). This holds on average over images from the same distribution as these.

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
    """The prediction set of each image: its classes up to the threshold, and always the most probable one.

    Args:
        probabilities: float [N, C].

    Returns:
        bool [N, C].
    """
    sets = class_scores(probabilities, method) <= threshold + _ROUNDING
    sets[np.arange(len(sets)), np.argmax(probabilities, axis=1)] = True
    return sets


def accuracy_threshold(confidences: Floats, correct: npt.NDArray[np.bool_], accuracy: float) -> float:
    """The lowest confidence threshold at which the answers have the given accuracy, so that most images get one.

    Args:
        confidences: float [N], the probability of the predicted class; ``correct``: bool [N].
        accuracy: the share of right answers among the given answers.

    Raises:
        DataError: when no threshold reaches it with at least ``images_for_accuracy`` answers.

    Source: selective classification (Geifman and El-Yaniv, 2017, arXiv 1705.08500), with the observed accuracy in the
    place of a confidence bound.
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
    """The smallest number of answers that has this accuracy with one wrong answer."""
    return math.ceil(1 / (1 - accuracy) - _ROUNDING)


def cross_fitted_sets(
    logits: Floats, labels: Integers, coverage: float, method: Method, folds: int = FOLDS, seed: int = 0
) -> SetsReached:
    """Cross-validate ``conformal_threshold``: choose it without each fold, and evaluate it on that fold.

    The temperature is also fitted without the fold.

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
    """Cross-validate ``accuracy_threshold``; see ``cross_fitted_sets``.

    If the other folds have no such threshold, no image of the fold is answered.
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
    """For each fold: the rows outside it, and its rows."""
    rows = np.random.default_rng(seed).permutation(size)
    for fold in np.array_split(rows, min(folds, size)):
        yield np.setdiff1d(rows, fold), fold


def _temperature(logits: Floats, labels: Integers) -> float:
    """The most likely temperature; 1 if it cannot be fitted."""
    try:
        return fit_temperature(logits, labels)
    except DataError:
        return 1.0


def _rank(num_images: int, coverage: float) -> int:
    return math.ceil((num_images + 1) * coverage - _ROUNDING)
