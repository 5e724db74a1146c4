"""Features that need no network: a cloud for each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ftexp.data.samples import Sample
from ftexp.probe.features import Features


def clouds(num_samples: int, num_classes: int = 3, distance: float = 6.0, seed: int = 0) -> Features:
    """Samples of each class in turn around a corner of its own, each a group of its own."""
    labels = torch.arange(num_samples) % num_classes
    noise = torch.randn(num_samples, num_classes + 2, generator=torch.Generator().manual_seed(seed))
    noise[torch.arange(num_samples), labels] += distance
    return features_of(noise, labels.tolist(), range(num_samples))


def features_of(values: torch.Tensor, labels: Sequence[int], groups: Sequence[int]) -> Features:
    classes = tuple("abcdefghij"[: max(labels) + 1])
    samples = tuple(Sample(f"{i}.png", classes[label], "train") for i, label in enumerate(labels))
    return Features(values.float(), torch.tensor(labels), torch.tensor(groups), samples, classes)


def copies(num_pairs: int) -> Features:
    """Images twice, with labels that nothing but the copy tells; the two are a group."""
    labels = torch.randint(2, (num_pairs,), generator=torch.Generator().manual_seed(1)).repeat(2)
    values = 20 * torch.eye(num_pairs).repeat(2, 1)
    return features_of(values, labels.tolist(), [i % num_pairs for i in range(2 * num_pairs)])
