"""The interface of batches: inputs of the network, on the device and normalised.

Three classes implement it: ``WorkerBatches``, ``PixelBatches`` and ``ActivationBatches``. ``choose_batches`` picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ftexp.data.digests import ContentDigests
from ftexp.data.loading.sampler import EpochSampler
from ftexp.data.loading.tensor_store import TensorStore
from ftexp.machine.accelerator import moved
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network

Forward = Callable[[torch.Tensor], torch.Tensor]
# Inputs of the network, and targets: class indices or class probabilities.
Batch = tuple[torch.Tensor, torch.Tensor]


class Batches(Protocol):
    """The batches of an epoch."""

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""

    @property
    def num_samples(self) -> int:
        """Number of samples; an epoch may leave out a few of them."""

    def num_images(self, batch: int) -> int:
        """Number of images in a batch (numbered from 0) over all ranks."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's inputs [B, ...] and int64 labels [B], in the epoch's order, from batch ``start`` on."""

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The paths of the samples in a batch (numbered from 0) of an epoch, for messages."""

    def close(self) -> None:
        """Release all memory of the batches, and end their worker processes."""


class SampledBatches(Batches, Protocol):
    """Batches in the order of a sampler; batches with the same sampler hold the same samples."""

    @property
    def sampler(self) -> EpochSampler:
        """Which samples are in which batch."""


class ImageBatches(SampledBatches, Protocol):
    """Batches of images."""

    def part(self, epoch: int, start: int, stop: int) -> Iterator[Batch]:
        """As ``epoch``, from batch ``start`` up to ``stop``; images that are not decoded yet are not kept decoded."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What all batches of a run share.

    Attributes:
        runtime: the device and the ranks.
        normalizer: function from uint8 images [B, 3, H, W] on the device to normalised float images.
        digests: digests of the images, which name the cached files.
        pixels: the store for decoded images; None: they are not cached.
        activations: the store for activations of frozen blocks.
    """

    runtime: Runtime
    normalizer: Callable[[torch.Tensor], torch.Tensor]
    digests: ContentDigests
    pixels: TensorStore | None
    activations: TensorStore

    def normalised(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Turn uint8 images into float32 [B, 3, H, W] on the device, in its memory format; labels stay the same."""
        for images, labels in batches:
            yield self.normalizer(self.runtime.place_images(images)), moved(labels, self.runtime.device)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The batches of a phase, and the forward and the loss for them.

    Attributes:
        network: the whole network.
        forward: function from inputs to logits: the network, or its suffix if the batches are activations.
        train: the training batches.
        val: the validation batches.
        runtime: the device and the ranks.
        loss: the training loss, a ``Loss``.
    """

    network: Network
    forward: Forward
    train: Batches
    val: Batches
    runtime: Runtime
    loss: nn.Module
