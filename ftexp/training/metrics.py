"""Scores of a split, computed once all of its batches have been seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from ftexp.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores over all samples of a split.

    Attributes:
        loss: mean cross-entropy without label smoothing.
        macro_f1: mean over the classes that occur in the truth or the predictions.
        confusion: int64 [classes, classes], rows are the truth.
        labels, predictions: int64 [samples], in the order in which they were scored.
    """

    loss: float
    accuracy: float
    macro_f1: float
    num_samples: int
    confusion: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, loss: float, labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], num_classes: int
    ) -> Scores:
        """Everything that follows from the predictions."""
        confusion = confusion_matrix(labels, predictions, labels=range(num_classes))
        return cls(
            loss=loss,
            accuracy=float(np.mean(labels == predictions)),
            macro_f1=macro_f1(confusion),
            num_samples=len(labels),
            confusion=confusion,
            labels=labels,
            predictions=predictions,
        )

    @property
    def num_correct(self) -> int:
        """Samples whose class was predicted."""
        return int(np.trace(self.confusion))

    def metric(self, name: str) -> float:
        """The score called ``accuracy`` or ``macro_f1``."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1}[name]


class ScoreKeeper:
    """Collects batches; nothing is read back from the device before ``compute``."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._losses: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []
        self._predictions: list[torch.Tensor] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            logits: float [batch, classes].
            labels: int64 [batch].
        """
        self._losses.append(torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none"))
        self._labels.append(labels)
        self._predictions.append(logits.argmax(dim=1))

    def compute(self, ranks: Ranks) -> tuple[Scores, list[int]]:
        """Scores over everything that all ranks have added so far, the same on each of them.

        Returns:
            The scores, and the positions of the samples whose loss is not finite.
        """
        parts = (self._labels, self._predictions, self._losses)
        labels, predictions, losses = (ranks.interleave(torch.cat(part)).cpu() for part in parts)
        loss = losses.double().mean().item()
        not_finite = (~losses.isfinite()).nonzero().flatten().tolist()
        return Scores.of(loss, labels.numpy(), predictions.numpy(), self._num_classes), not_finite


def macro_f1(confusion: npt.NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur, from a confusion matrix with the truth in rows."""
    hits = np.diag(confusion)
    support_and_predicted = confusion.sum(axis=0) + confusion.sum(axis=1)
    occurs = support_and_predicted > 0
    return float(np.mean(2 * hits[occurs] / support_and_predicted[occurs]))


def accuracy_interval(num_correct: int, num_samples: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy (Wilson, 1927), which stays sensible near 0 and 1."""
    interval = binomtest(num_correct, num_samples).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def is_better(value: float, best: float | None) -> bool:
    """Whether a new value wins: ties keep the earlier one, and NaN never wins."""
    return not math.isnan(value) and (best is None or value > best)
