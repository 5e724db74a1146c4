"""What an epoch is run over: batches as the network takes them, on the device and normalised.

There are three ways to them, each a class: ``WorkerBatches``, ``PixelBatches`` and ``ActivationBatches``;
``choose_batches`` picks one.
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
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network

Forward = Callable[[torch.Tensor], torch.Tensor]
# Inputs of the network and class numbers, or shares of classes.
Batch = tuple[torch.Tensor, torch.Tensor]


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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The inputs and int64 labels of this rank, in the epoch's order, from batch ``start`` on."""

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The samples in a batch of an epoch, from 0, for messages."""

    def close(self) -> None:
        """Let go of all that is kept for the batches, and end the processes that make them."""


class SampledBatches(Batches, Protocol):
    """Batches of samples as a sampler orders them; those of one sampler go together, whatever they hold."""

    @property
    def sampler(self) -> EpochSampler:
        """Which samples are in which batch."""


@dataclass(frozen=True, slots=True)
class BatchContext:
    """What all batches of a run share.

    Attributes:
        normalizer: uint8 images [B, 3, H, W] on the device -> what the network takes.
        digests: of the images, which name what is kept of them.
        pixels: where decoded images are kept; None: nowhere.
        activations: where activations of frozen blocks are kept.
    """

    runtime: Runtime
    normalizer: Callable[[torch.Tensor], torch.Tensor]
    digests: ContentDigests
    pixels: TensorStore | None
    activations: TensorStore

    def normalised(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """uint8 images -> float32 [B, 3, H, W] on the device in its memory format, and their labels."""
        for images, labels in batches:
            yield (
                self.normalizer(self.runtime.place_images(images)),
                labels.to(self.runtime.device, non_blocking=True),
            )


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
