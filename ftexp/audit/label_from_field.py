"""How well a class can be predicted from one field of metadata, such as the file name or the width.

The three kinds of fields have a simple model each, in numpy: scikit-learn has them all, but takes a second to
import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

NUMERIC = ("bytes", "width", "height", "bytes_per_pixel")
# Part of the key under which scores are kept; increase it when scores change.
VERSION = 3
# The lengths of the runs of characters that are looked for in file names, and how many of the most frequent are used.
LENGTHS, MAX_RUNS = (2, 3, 4), 20_000
# How often the decision tree cuts a range again, and the fewest samples on a side of a cut.
MAX_DEPTH, MIN_LEAF = 5, 5

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# Takes the numbers of the samples to learn from, and of those to predict; returns the classes of the latter.
Predictor = Callable[[Integers, Integers], Integers]


def balanced_accuracy(
    name: str, values: Sequence[str] | Sequence[float], labels: Sequence[str], num_folds: int
) -> tuple[float, float]:
    """The mean recall over the classes, by cross-validation, and its standard error.

    Args:
        name: the field, on which the kind of model depends.
        values: of each sample, N.
        labels: the class of each sample, N; every class has at least as many samples as there are folds.
        num_folds: the number of folds.
    """
    truth = np.unique(labels, return_inverse=True)[1]
    kind = _by_runs if name == "file name" else _by_number if name in NUMERIC else _by_value
    predict, fold_of, predicted = kind(values, truth), _folds(truth, num_folds), np.empty_like(truth)
    for fold in range(num_folds):
        out = np.flatnonzero(fold_of == fold)
        predicted[out] = predict(np.flatnonzero(fold_of != fold), out)
    sizes = np.bincount(truth)
    recalls = np.bincount(truth[predicted == truth], minlength=len(sizes)) / sizes
    # The variance of a recall has a lower limit, because a perfect recall of few samples is not certain.
    variance = np.maximum(recalls * (1 - recalls), 0.25 / sizes) / sizes
    return float(recalls.mean()), float(np.sqrt(variance.sum()) / len(sizes))


def _folds(truth: Integers, num_folds: int) -> Integers:
    """The fold of each sample, drawn so that every class is spread evenly."""
    order = np.random.default_rng(0).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    folds = np.empty_like(truth)
    folds[order] = np.arange(len(truth)) % num_folds
    return folds


def _by_value(values: Sequence[Any], truth: Integers) -> Predictor:
    """Predict the class of whose samples the largest share has the same value."""
    codes = np.unique(values, return_inverse=True)[1]
    return lambda known, asked: _likeliest(codes, truth, known, asked)


def _by_number(values: Sequence[Any], truth: Integers) -> Predictor:
    """Predict the class of whose samples the largest share is in the same range; a decision tree cuts the ranges."""
    numbers = np.array(values, np.float64)

    def predict(known: Integers, asked: Integers) -> Integers:
        order = known[np.argsort(numbers[known], kind="stable")]
        weights = (1 / np.bincount(truth[known]))[truth[order]]
        ranges = np.searchsorted(_cuts(numbers[order], truth[order], weights, MAX_DEPTH), numbers)
        return _likeliest(ranges, truth, known, asked)

    return predict


def _likeliest(codes: Integers, truth: Integers, known: Integers, asked: Integers) -> Integers:
    """For each sample that is asked about, the class of whose known samples the largest share has the same code."""
    table = np.zeros((codes.max() + 1, truth.max() + 1))
    np.add.at(table, (codes[known], truth[known]), 1.0)
    classes: Integers = (table / table.sum(axis=0))[codes[asked]].argmax(axis=1)
    return classes


def _cuts(numbers: Floats, truth: Integers, weights: Floats, depth: int) -> list[float]:
    """Where a tree cuts a range, so that the Gini impurity of its parts is lowest.

    Args:
        numbers: in ascending order, float64 [N].
        truth: the class of each, int64 [N].
        weights: of each, the same for all of a class, float64 [N].
        depth: how often parts are cut again.
    """
    may = np.diff(numbers) > 0
    may[: MIN_LEAF - 1] = may[len(numbers) - MIN_LEAF :] = False
    if depth == 0 or not may.any() or (truth == truth[0]).all():
        return []
    purity = _purity(truth, weights)[:-1] + _purity(truth[::-1], weights[::-1])[-2::-1]
    at = int(np.where(may, purity.round(9), -np.inf).argmax()) + 1  # of equally good cuts the first
    lower = _cuts(numbers[:at], truth[:at], weights[:at], depth - 1)
    upper = _cuts(numbers[at:], truth[at:], weights[at:], depth - 1)
    return [*lower, float(numbers[at - 1 : at + 1].mean()), *upper]


def _purity(truth: Integers, weights: Floats) -> Floats:
    """For the first 1, 2, ..., N samples: the sum over classes of the squared weight, divided by the whole weight.

    A class with k samples of weight w adds (k w)^2. One more sample adds (2 k + 1) w^2 to that, so that the sums grow
    from sample to sample and need no table of samples by classes.
    """
    order = np.argsort(truth, kind="stable")
    in_order = truth[order]
    earlier = np.empty_like(truth)  # samples of the same class before each
    earlier[order] = np.arange(len(truth)) - np.searchsorted(in_order, in_order)
    purity: Floats = ((2 * earlier + 1) * weights**2).cumsum() / weights.cumsum()
    return purity


def _by_runs(names: Sequence[Any], truth: Integers) -> Predictor:
    """Complement naive Bayes on short runs of characters, which finds "cat_001" as well as "cam2-17".

    Source: Rennie et al. (2003), without the normalisation of weights, as in scikit-learn.
    """
    runs = _most_frequent([_runs(f" {name} ".lower()) for name in names])
    num_runs = 1 + max((int(own.max()) for own in runs if len(own)), default=0)

    def predict(known: Integers, asked: Integers) -> Integers:
        counts = np.zeros((truth.max() + 1, num_runs))
        for i in known:
            np.add.at(counts[truth[i]], runs[i], 1.0)
        others = counts.sum(axis=0) - counts + 1.0
        logs = np.log(others / others.sum(axis=1, keepdims=True))
        return np.array([logs[:, runs[i]].sum(axis=1).argmin() for i in asked])

    return predict


def _runs(text: str) -> list[str]:
    return [text[start : start + length] for length in LENGTHS for start in range(len(text) - length + 1)]


def _most_frequent(texts: Sequence[Sequence[str]]) -> list[Integers]:
    """The numbers of the runs of each text, the most frequent run first; rare ones are left out."""
    _, codes, counts = np.unique([run for runs in texts for run in runs], return_inverse=True, return_counts=True)
    rank = np.empty_like(counts)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    of_texts = np.split(rank[codes], np.cumsum([len(runs) for runs in texts])[:-1])
    return [numbers[numbers < MAX_RUNS] for numbers in of_texts]
