"""Scores of every class, and the score of always predicting the most frequent class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ftexp.evaluation.metrics import ClassCounts, accuracy, macro_f1


def class_table(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, object]]:
    """Precision, recall, F1 and support of every class; a score is 0 if its denominator is 0.

    Args:
        confusion: the confusion matrix, int64 [C, C]; rows are the true classes.
        classes: names of the C classes.
    """
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "class": name,
            "precision": _share(hits[i], predicted[i]),
            "recall": _share(hits[i], support[i]),
            "f1": _share(2 * hits[i], support[i] + predicted[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(classes)
    ]


def majority_baseline(
    train_labels: Iterable[str], classes: Sequence[str], confusion: npt.NDArray[np.int64]
) -> dict[str, object]:
    """The scores of always predicting the most frequent class of training.

    Args:
        train_labels: the class of each training image.
        classes: names of the C classes.
        confusion: a confusion matrix of the split to be scored, int64 [C, C]; rows are the true classes.
    """
    images = Counter(train_labels)
    largest = max(range(len(classes)), key=lambda index: images[classes[index]])
    always = np.zeros_like(confusion)
    always[:, largest] = confusion.sum(axis=1)
    counts = ClassCounts.of(always)
    return {"class": classes[largest], "accuracy": float(accuracy(counts)), "macro_f1": float(macro_f1(counts))}


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
