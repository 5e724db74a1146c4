"""Batches of cached decoded images, which are on the device if there is room for them."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.data.loading.kept_pixels import Pixels
from ftexp.data.loading.pixel_store import PixelSource, UInt8Image
from ftexp.machine.accelerator import pinned
from ftexp.machine.transfer import batches_to_device
from ftexp.training.inputs.batches import Batch, BatchContext
from ftexp.training.inputs.worker_batches import WorkerBatches


class PixelBatches:
    """Batches of images that are decoded once, in the first epoch; later epochs read the cached pixels.

    Args:
        source: the images, and the store for their pixels.
        augmentation: augmentation of whole batches; None: no augmentation.
        otherwise: the same batches with decoding in every epoch, in case the images do not fit into the store.
        context: what all batches of a run share.
    """

    def __init__(
        self,
        source: PixelSource,
        augmentation: BatchAugmentation | None,
        otherwise: WorkerBatches,
        context: BatchContext,
    ) -> None:
        self._source = source
        self._augmentation = augmentation
        self._otherwise = otherwise
        self._context = context
        self._first_pass: Generator[Batch, None, None] | None = None
        self._is_closed = False
        self.sampler = sampler = otherwise.sampler
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.num_images, self.paths = sampler.num_images, sampler.paths

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Images and labels; ``epoch`` decides the augmentation, and the order where the sampler shuffles."""
        assert not self._is_closed, "the batches have been closed"
        self._end_first_pass()  # if it was stopped before its end
        if start == 0 and self._can_train_while_decoding:
            self._first_pass = self._as_decoded(epoch)
            yield from self._context.normalised(self._first_pass)
        elif (pixels := self._source.open()) is not None:
            yield from self._context.normalised(self._from_kept(pixels, epoch, slice(start, None)))
        else:
            yield from self._otherwise.epoch(epoch, start)

    def part(self, epoch: int, start: int, stop: int) -> Iterator[Batch]:
        """As ``epoch``, from batch ``start`` up to ``stop``; only the images of these batches are decoded."""
        if self._source.is_kept and (pixels := self._source.open()) is not None:
            yield from self._context.normalised(self._from_kept(pixels, epoch, slice(start, stop)))
        else:
            yield from self._otherwise.part(epoch, start, stop)

    def close(self) -> None:
        """Release the images."""
        self._end_first_pass()
        self._source.close()
        self._otherwise.close()
        self._augmentation = None
        self._is_closed = True

    @property
    def _can_train_while_decoding(self) -> bool:
        """Whether the first epoch can train on the images while they are decoded: on all of them, each once."""
        alone = self.sampler.settings.ranks.size == 1
        return alone and self.sampler.shows_each_once and self._source.fits and not self._source.is_kept

    def _end_first_pass(self) -> None:
        if self._first_pass is not None:
            self._first_pass.close()
            self._first_pass = None

    def _as_decoded(self, epoch: int) -> Generator[Batch, None, None]:
        parts = self.sampler.own_batches(epoch)
        for images, indices in zip(self._source.first_pass(parts), parts, strict=True):
            labels = self.sampler.labels[indices]
            yield self._pinned(self._put_together(images, epoch, indices)), self._pinned(labels)

    def _put_together(self, images: list[UInt8Image], epoch: int, indices: list[int]) -> Tensor:
        if self._augmentation is None:
            return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return self._augmentation([torch.from_numpy(image) for image in images], epoch, indices)

    def _from_kept(self, pixels: Pixels, epoch: int, batches: slice) -> Iterator[Batch]:
        parts = self.sampler.own_batches(epoch)[batches]
        if self._augmentation is None:
            device, images_of = pixels.device, pixels.batches(parts)
        else:
            device, images_of = self._augmentation.device, self._augmented(pixels, self._augmentation, epoch, parts)
        labels = batches_to_device([self.sampler.labels[part].tolist() for part in parts], device)
        for images, of_part in zip(images_of, labels, strict=True):
            yield self._pinned(images), self._pinned(of_part)

    def _augmented(
        self, pixels: Pixels, augmentation: BatchAugmentation, epoch: int, parts: list[list[int]]
    ) -> Iterator[Tensor]:
        for indices in parts:
            yield augmentation([pixels.tensor(index) for index in indices], epoch, indices)
            pixels.release()

    def _pinned(self, tensor: Tensor) -> Tensor:
        """The tensor in pinned memory, if the device is a GPU and the tensor is not on it."""
        return pinned(tensor, self._context.runtime.device)
