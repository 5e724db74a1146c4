"""The predictions of a network on a split, collected batch by batch, and their metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ftexp.evaluation.metrics import (
    OF_COUNTS,
    OF_PROBABILITIES,
    OF_SAMPLES,
    ClassCounts,
    Integers,
    Values,
    exact_floats,
    sums_by,
)
from ftexp.machine.distributed import Ranks


@dataclass(frozen=True, slots=True)
class Scores:
    """The predictions of a network for the samples of a split, in the order in which they were scored.

    Attributes:
        labels: indices of the true classes, int64 [N].
        predictions: indices of the predicted classes, int64 [N].
        ranks: number of classes with a larger logit than the true one, int64 [N].
        losses: cross-entropy of each sample without label smoothing, float64 [N].
        num_classes: number of classes, C.
        logits: float32 [N, C]; None in a run that an older version began.
    """

    labels: Integers
    predictions: Integers
    ranks: Integers
    losses: npt.NDArray[np.float64]
    num_classes: int
    logits: npt.NDArray[np.float32] | None = None

    @property
    def probabilities(self) -> npt.NDArray[np.float32] | None:
        """The softmax of the logits, float32 [N, C], before any calibration."""
        if self.logits is None:
            return None
        likelihoods = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        shares: npt.NDArray[np.float32] = likelihoods / likelihoods.sum(axis=1, keepdims=True)
        return shares

    @property
    def confidences(self) -> npt.NDArray[np.float32] | None:
        """The probability of the predicted class, float32 [N]."""
        probabilities = self.probabilities
        return None if probabilities is None else np.asarray(probabilities.max(axis=1))

    @property
    def confusion(self) -> Integers:
        """The confusion matrix, int64 [C, C]; rows are the true classes."""
        cells = self.labels * self.num_classes + self.predictions
        return np.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)

    @property
    def class_counts(self) -> ClassCounts:
        """How often each class is the true one, the predicted one, and both."""
        hits = self.labels[self.labels == self.predictions]
        counted = (np.bincount(of, minlength=self.num_classes) for of in (self.labels, self.predictions, hits))
        return ClassCounts(*counted)

    @property
    def num_samples(self) -> int:
        """Number of scored samples."""
        return len(self.labels)

    @property
    def num_correct(self) -> int:
        """Number of samples whose class was predicted correctly."""
        return int(np.sum(self.labels == self.predictions))

    @property
    def loss(self) -> float:
        """Mean cross-entropy without label smoothing."""
        return float(np.mean(self.losses))

    @property
    def accuracy(self) -> float:
        """Share of the samples whose class was predicted correctly."""
        return self.metric("accuracy")

    def metric(self, name: str) -> float:
        """The value of a metric in ``METRICS``; NaN if it is not defined for these samples."""
        if name in OF_COUNTS:
            return float(OF_COUNTS[name](self.class_counts))
        return float(self.resampled(name, np.ones((self.num_samples, 1), np.int64))[0])

    def resampled(self, name: str, times: Integers) -> Values:
        """The values of a metric for resamples of the samples, as ``take`` and ``metric`` have them one by one.

        Args:
            name: of a metric in ``METRICS``.
            times: how often each resample has each sample, integers [N, R].

        Returns:
            float64 [R]; NaN where the metric is not defined.
        """
        if name in OF_COUNTS:
            return OF_COUNTS[name](self.resampled_counts(times))
        weights = exact_floats(times)
        if name in OF_SAMPLES:
            return OF_SAMPLES[name](self.ranks, self.losses, weights)
        probabilities = self.probabilities
        assert probabilities is not None, f"{name} needs logits, which were not kept"
        return OF_PROBABILITIES[name](self.labels, probabilities, weights)

    def resampled_counts(self, times: Integers) -> ClassCounts:
        """The class counts of resamples, each int64 [R, C]; the argument is that of ``resampled``."""
        weights, hit = exact_floats(times), self.labels == self.predictions
        of = (self.labels, weights), (self.predictions, weights), (self.labels[hit], weights[hit])
        return ClassCounts(*(np.ascontiguousarray(sums_by(by, self.num_classes, each).T) for by, each in of))

    def metrics(self, names: Iterable[str]) -> dict[str, float]:
        """The values of several metrics by name."""
        return {name: self.metric(name) for name in names}

    def at(self, temperature: float) -> Scores:
        """The same predictions with the logits divided by a temperature; without logits, these scores."""
        if self.logits is None:
            return self
        logits = self.logits / np.float32(temperature)
        losses = torch.nn.functional.cross_entropy(
            torch.from_numpy(logits).double(), torch.from_numpy(self.labels), reduction="none"
        )
        return replace(self, logits=logits, losses=losses.numpy())

    def needed_for(self, names: Iterable[str]) -> Scores:
        """These scores, to keep or to draw samples from: without logits if none of these metrics needs them."""
        return self if any(name in OF_PROBABILITIES for name in names) else replace(self, logits=None)

    def take(self, rows: Integers) -> Scores:
        """The scores of the samples at these indices, which may repeat, as in a bootstrap."""
        return replace(
            self,
            labels=self.labels[rows],
            predictions=self.predictions[rows],
            ranks=self.ranks[rows],
            losses=self.losses[rows],
            logits=None if self.logits is None else self.logits[rows],
        )


class ScoreKeeper:
    """Collects the predictions of batches; nothing is read back from the device before ``compute``.

    Args:
        num_classes: number of classes, C.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._batches: list[tuple[torch.Tensor, ...]] = []

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch.

        Args:
            logits: float [B, C].
            labels: int64 [B].
        """
        logits = logits.float()
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
        self._batches.append((labels, logits.argmax(dim=1), ranks, losses, logits))

    def compute(self, ranks: Ranks) -> tuple[Scores, list[int]]:
        """The scores of all samples that all ranks have added; a collective with the same result on each rank.

        Returns:
            The scores, and the indices of the samples whose loss is not finite.
        """
        parts = [ranks.gather_rows(torch.cat(part)).cpu() for part in zip(*self._batches, strict=True)]
        labels, predictions, true_ranks, losses, logits = parts
        not_finite = (~losses.isfinite()).nonzero().flatten().tolist()
        scores = Scores(
            labels.numpy(),
            predictions.numpy(),
            true_ranks.numpy(),
            losses.double().numpy(),
            self._num_classes,
            logits.numpy(),
        )
        return scores, not_finite
