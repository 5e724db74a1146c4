"""What a network said of a split, collected batch by batch, and the metrics that follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ftexp.evaluation.metric_names import METRICS
from ftexp.evaluation.metrics import OF_CONFUSION, OF_PROBABILITIES, OF_SAMPLES, Integers
from ftexp.machine.distributed import Ranks


@dataclass(frozen=True, slots=True)
class Scores:
    """What a network said of the samples of a split, in the order in which they were scored.

    Attributes:
        labels, predictions: int64 [N].
        ranks: int64 [N], how many classes got a larger logit than the true one.
        losses: float64 [N], the cross-entropy of each, without label smoothing.
        num_classes: C.
        probabilities: float32 [N, C]; None where no metric that needs them was asked for.
    """

    labels: Integers
    predictions: Integers
    ranks: Integers
    losses: npt.NDArray[np.float64]
    num_classes: int
    probabilities: npt.NDArray[np.float32] | None = None

    @property
    def confusion(self) -> Integers:
        """int64 [C, C], the truth in rows."""
        cells = self.labels * self.num_classes + self.predictions
        return np.bincount(cells, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)

    @property
    def num_samples(self) -> int:
        """How many were scored."""
        return len(self.labels)

    @property
    def num_correct(self) -> int:
        """Samples whose class was predicted."""
        return int(np.sum(self.labels == self.predictions))

    @property
    def loss(self) -> float:
        """Mean cross-entropy without label smoothing."""
        return float(np.mean(self.losses))

    @property
    def accuracy(self) -> float:
        """Share of the samples whose class was predicted."""
        return self.metric("accuracy")

    def metric(self, name: str) -> float:
        """One metric of ``METRICS``; NaN where these samples do not define it."""
        if name in OF_CONFUSION:
            return float(OF_CONFUSION[name](self.confusion))
        if name in OF_SAMPLES:
            return OF_SAMPLES[name](self.ranks, self.losses)
        assert self.probabilities is not None, f"{name} needs probabilities, which this scoring did not keep"
        return OF_PROBABILITIES[name](self.labels, self.probabilities)

    def metrics(self, names: Iterable[str]) -> dict[str, float]:
        """Several metrics by name."""
        return {name: self.metric(name) for name in names}

    def take(self, rows: Integers) -> Scores:
        """Those of some samples, in this order; a row may come several times, as a bootstrap draws it."""
        return replace(
            self,
            labels=self.labels[rows],
            predictions=self.predictions[rows],
            ranks=self.ranks[rows],
            losses=self.losses[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
        )


class ScoreKeeper:
    """Collects batches; nothing is read back from the device before ``compute``.

    Args:
        metrics: the names of those that will be asked for; probabilities are kept only where one needs them.
    """

    def __init__(self, num_classes: int, metrics: Iterable[str] = ()) -> None:
        self._num_classes = num_classes
        self._keeps_probabilities = any(METRICS[name].needs == "probabilities" for name in metrics)
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
        kept = (labels, logits.argmax(dim=1), ranks, losses)
        self._batches.append((*kept, logits.softmax(dim=1)) if self._keeps_probabilities else kept)

    def compute(self, ranks: Ranks) -> tuple[Scores, list[int]]:
        """Scores over everything that all ranks have added so far, the same on each of them.

        Returns:
            The scores, and the positions of the samples whose loss is not finite.
        """
        parts = [ranks.gather_rows(torch.cat(part)).cpu() for part in zip(*self._batches, strict=True)]
        labels, predictions, true_ranks, losses, *probabilities = parts
        not_finite = (~losses.isfinite()).nonzero().flatten().tolist()
        scores = Scores(
            labels.numpy(),
            predictions.numpy(),
            true_ranks.numpy(),
            losses.double().numpy(),
            self._num_classes,
            probabilities[0].numpy() if probabilities else None,
        )
        return scores, not_finite
