"""Batches as the network takes them: on the device, normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ftexp.data.loading import Loader
from ftexp.data.transforms import Normalizer
from ftexp.models.blocks import Network
from ftexp.training.runtime import Runtime

Forward = Callable[[torch.Tensor], torch.Tensor]


class Batches(Protocol):
    """Anything an epoch can be run over."""

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""

    @property
    def num_samples(self) -> int:
        """Samples behind the batches, of which an epoch may leave out the last few."""

    def num_images(self, batch: int) -> int:
        """In a batch, from 0, over all ranks."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The inputs and int64 labels of this rank, in the epoch's order, from batch ``start`` on."""

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The samples in a batch of an epoch, from 0, for messages."""


class ImageBatches:
    """Batches of a loader: float32 images [B, 3, H, W] on the device in its memory format, and their labels."""

    def __init__(self, loader: Loader, normalizer: Normalizer, runtime: Runtime) -> None:
        self._loader = loader
        self._normalizer = normalizer
        self._runtime = runtime
        self.batch_indices = loader.batch_indices
        self.own_indices = loader.own_indices
        self.num_images = loader.num_images
        self.samples = loader.samples
        self.labels = loader.labels
        self.runtime = runtime

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self._loader)

    @property
    def num_samples(self) -> int:
        """Samples behind the batches."""
        return len(self.labels)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass; ``epoch`` decides order and augmentation where the loader shuffles."""
        self._loader.set_epoch(epoch, start)
        for images, labels in self._loader:
            yield (
                self._normalizer(self._runtime.place_images(images)),
                labels.to(self._runtime.device, non_blocking=True),
            )

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The samples in a batch of an epoch, from 0."""
        return [self.samples[index].path for index in self.batch_indices(epoch)[batch]]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a phase trains and validates on, and what to call with it.

    Attributes:
        network: all of it, for its modes and its weights.
        forward: a batch's inputs -> logits: the network itself, or its suffix where the batches hold activations.
        loss: what training minimises, a ``Loss``.
    """

    network: Network
    forward: Forward
    train: Batches
    val: Batches
    runtime: Runtime
    loss: nn.Module
