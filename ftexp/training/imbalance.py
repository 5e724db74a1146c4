"""Weights of the classes in the loss, from the frequencies of the classes in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from ftexp.config.loss import ClassWeights
from ftexp.data.samples import Sample

# Beta of the effective number, (1 - beta^n) / (1 - beta) for n samples; Cui et al. use 0.9 to 0.9999.
EFFECTIVE_NUMBER_BETA = 0.999


def class_counts(samples: Sequence[Sample], classes: Sequence[str]) -> list[int]:
    """Number of samples of each class, in the order of the classes."""
    counts = Counter(sample.label for sample in samples)
    return [counts[name] for name in classes]


def class_weights(counts: Sequence[int], scheme: ClassWeights) -> torch.Tensor | None:
    """Weights of the classes in the loss, from their number of training samples.

    Args:
        counts: number of samples of each class.
        scheme: ``none``; ``balanced``: 1 / count; ``effective``: 1 / effective number of samples
            (Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019).

    Returns:
        float32 [classes] with mean 1; None for ``none``.
    """
    if scheme == "none":
        return None
    numbers = torch.tensor(counts, dtype=torch.float64)
    if scheme == "effective":
        numbers = (1 - EFFECTIVE_NUMBER_BETA**numbers) / (1 - EFFECTIVE_NUMBER_BETA)
    weights = 1 / numbers
    return (weights / weights.mean()).float()
