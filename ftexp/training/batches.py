"""Batches as the network takes them: on the device, normalised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch

from ftexp.data.loading import Loader
from ftexp.data.transforms import Normalizer
from ftexp.training.runtime import Runtime


class Batches(Protocol):
    """Anything an epoch can be run over."""

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The inputs and int64 labels of one epoch, in that epoch's order."""


class ImageBatches:
    """Batches of a loader: float32 images [B, 3, H, W] on the device in its memory format, and their labels."""

    def __init__(self, loader: Loader, normalizer: Normalizer, runtime: Runtime) -> None:
        self._loader = loader
        self._normalizer = normalizer
        self._runtime = runtime

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self._loader)

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One pass; ``epoch`` decides order and augmentation where the loader shuffles."""
        self._loader.set_epoch(epoch)
        for images, labels in self._loader:
            yield (
                self._normalizer(self._runtime.place_images(images)),
                labels.to(self._runtime.device, non_blocking=True),
            )
