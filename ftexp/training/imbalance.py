"""Classes of different sizes: weights for the loss, a table per class, and the score of always saying the largest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ftexp.data.samples import Sample
from ftexp.training.metrics import macro_f1

# How soon more samples of a class stop adding anything new; Cui et al. use 0.9 to 0.9999.
EFFECTIVE_NUMBER_BETA = 0.999


def class_weights(samples: Sequence[Sample], classes: Sequence[str], scheme: str) -> torch.Tensor | None:
    """Weights of the classes in the loss, by how often they occur in training.

    Args:
        scheme: ``none``; ``balanced``: inverse to the count; ``effective``: inverse to the effective number of samples
            (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019).

    Returns:
        float32 [classes] with mean 1; None for ``none``.
    """
    if scheme == "none":
        return None
    counts = torch.tensor(_counts(samples, classes), dtype=torch.float64)
    if scheme == "effective":
        counts = (1 - EFFECTIVE_NUMBER_BETA**counts) / (1 - EFFECTIVE_NUMBER_BETA)
    weights = 1 / counts
    return (weights / weights.mean()).float()


def class_table(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, object]]:
    """Precision, recall, F1 and support of every class; 0 where a quotient has nothing below the line.

    Args:
        confusion: int64 [classes, classes], rows are the truth.
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
    train: Sequence[Sample], classes: Sequence[str], confusion: npt.NDArray[np.int64]
) -> dict[str, object]:
    """What always predicting the largest class of training would score on the split of a confusion matrix."""
    counts = _counts(train, classes)
    largest = counts.index(max(counts))
    always = np.zeros_like(confusion)
    always[:, largest] = confusion.sum(axis=1)
    accuracy = float(np.trace(always) / always.sum())
    return {"class": classes[largest], "accuracy": accuracy, "macro_f1": macro_f1(always)}


def _counts(samples: Sequence[Sample], classes: Sequence[str]) -> list[int]:
    counts = Counter(sample.label for sample in samples)
    return [counts[name] for name in classes]


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
