"""Batches of uint8 images, the same bits for any number of worker processes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ftexp.cores import available_cores
from ftexp.data.batch_augmentation import BatchAugmentation
from ftexp.data.dataset import ImageDataset
from ftexp.data.pixel_store import PixelSource
from ftexp.data.sampler import EpochSampler
from ftexp.data.samples import Sample
from ftexp.data.transforms import ImageTransform
from ftexp.errors import UserError
from ftexp.ranks import ALONE, Ranks

# Below this many files, starting processes takes longer than decoding.
MIN_FILES_FOR_WORKERS = 256
MAX_AUTO_WORKERS = 16


class Loader:
    """Iterating gives ``(images, labels)``: uint8 batch x 3 x height x width, and int64 class numbers.

    Order and augmentation follow from (seed, epoch, index of the sample) alone. Of every batch the loader gives the
    part of its rank. Nothing is read and no process is started before the first iteration.
    """

    def __init__(self, images: ImageDataset, order: EpochSampler, settings: _Settings) -> None:
        self._images = images
        self._order = order
        self._settings = settings
        self._batches: DataLoader[tuple[Tensor, Tensor]] | None = None
        self._first_pass: Generator[tuple[Tensor, Tensor], None, None] | None = None
        self._is_closed = False
        self.samples = images.samples
        self.labels = images.labels

    @property
    def num_samples(self) -> int:
        """How many there are, however many of them an epoch uses."""
        return len(self.samples)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the order and the augmentation of the next iteration, and how many of its batches to pass over."""
        self._order.epoch = epoch
        self._order.first = start * self._own_size

    def batch_indices(self, epoch: int) -> list[list[int]]:
        """Indices of the samples in each batch of an epoch, over all ranks, without reading an image."""
        order, size = self._order.indices(epoch), self._settings.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def own_indices(self, epoch: int) -> list[list[int]]:
        """This rank's part of each batch: what iterating gives."""
        ranks = self._settings.ranks
        return [batch[ranks.rank :: ranks.size] for batch in self.batch_indices(epoch)]

    def num_images(self, batch: int) -> int:
        """In a batch, from 0, over all ranks."""
        size = self._settings.batch_size
        return min(size, len(self._order) - batch * size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        assert not self._is_closed, "the loader has been closed"
        if self._first_pass is not None:
            self._first_pass.close()  # in case the pass was left before its end
            self._first_pass = None
        if self._can_train_while_decoding:
            self._first_pass = self._batches_as_decoded()
            return self._first_pass
        self._images.open_pixels()
        if self._images.makes_batches:
            return self._whole_batches()
        if self._batches is None:
            self._batches = self._start()
        return self._every_batch(_clear_errors(self._batches))

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self._order) // self._settings.batch_size)

    @property
    def num_workers(self) -> int:
        """Processes that decode and augment; none where that is done already, or takes less than starting them."""
        workers = self._settings.workers
        if not isinstance(workers, str):
            return workers
        if self._images.is_decoded and not self._settings.pin_memory:
            return 0
        return _auto_workers(self.samples, self._settings.ranks.local_size)

    @property
    def _own_size(self) -> int:
        return self._settings.batch_size // self._settings.ranks.size

    def close(self) -> None:
        """End the worker processes, which end with the last reference to the data loader, and let the images go."""
        if self._first_pass is not None:
            self._first_pass.close()
        self._batches = self._first_pass = None
        self._images.close()
        self._is_closed = True

    @property
    def _can_train_while_decoding(self) -> bool:
        """Whether images can be shown in the order in which they are decoded, all of them and each once."""
        alone = self._settings.ranks.size == 1
        return alone and self._order.first == 0 and self._order.shows_each_once and self._images.can_show_while_decoding

    def _batches_as_decoded(self) -> Generator[tuple[Tensor, Tensor], None, None]:
        epoch = self._order.epoch
        for images, labels in self._images.first_pass(epoch, self.own_indices(epoch)):
            yield self._pinned(images), self._pinned(labels)

    def _every_batch(self, own: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """What this rank has, and nothing of a last batch that has fewer images than there are ranks."""
        yield from own
        if self.num_images(len(self) - 1) <= self._settings.ranks.rank:
            yield self._images.no_images(self._order.epoch), self.labels[:0]

    def _whole_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        first, epoch = self._order.first // self._own_size, self._order.epoch
        for images, labels in self._images.batches(epoch, self.own_indices(epoch)[first:]):
            yield self._pinned(images), self._pinned(labels)

    def _pinned(self, tensor: Tensor) -> Tensor:
        """In memory that the device can copy from by itself, where it is not on it."""
        return tensor.pin_memory() if self._settings.pin_memory and tensor.device.type == "cpu" else tensor

    def _start(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(
            self._images,
            batch_size=self._own_size,
            sampler=self._order,
            num_workers=self.num_workers,
            collate_fn=_collate,
            pin_memory=self._settings.pin_memory,
            persistent_workers=self.num_workers > 0,
            # Its own, so that making an iterator does not advance the global one.
            generator=torch.Generator(),
        )


def _clear_errors(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """What goes wrong in a worker process, without the report of that process around it."""
    try:
        yield from batches
    except UserError as error:  # a worker's comes with its traceback, and the message last
        raise type(error)(str(error).strip().splitlines()[-1].removeprefix(f"{_full_name(error)}: ")) from None


def _full_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


@dataclass(frozen=True, slots=True)
class _Settings:
    batch_size: int
    workers: int | str
    pin_memory: bool
    ranks: Ranks


def make_loader(
    samples: Sequence[Sample],
    class_to_idx: Mapping[str, int],
    transform: ImageTransform,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    workers: int | str,
    pin_memory: bool,
    num_images: int | None = None,
    balanced: bool = False,
    views: int | None = None,
    source: PixelSource | None = None,
    batch_augmentation: BatchAugmentation | None = None,
    ranks: Ranks = ALONE,
) -> Loader:
    """Put samples, their transform and an order together.

    Args:
        batch_size: over all ranks, which it has to be a multiple of.
        num_images: that an epoch shows, over all ranks; None: all of them.
        balanced: with ``shuffle``: every class equally often in an epoch of as many samples.
        workers: processes that decode; 0: this one; ``auto``: by the source, its size and the cores.
        views: how many there are of an image, of which epoch e shows number e modulo ``views``; None: every epoch its
            own.
        source: of the prepared images of the samples, if they are to be kept; asked at the first iteration.
        batch_augmentation: of whole batches of kept images, in the place of ``transform.change``.
        ranks: which part of every batch is wanted.
    """
    classes = np.array([class_to_idx[sample.label] for sample in samples]) if balanced else None
    order = EpochSampler(
        len(samples), len(samples) if num_images is None else num_images, shuffle, seed, classes, ranks
    )
    images = ImageDataset(samples, class_to_idx, transform, seed, views, source, batch_augmentation)
    return Loader(images, order, _Settings(batch_size, workers, pin_memory, ranks))


def _collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def _auto_workers(samples: Sequence[Sample], processes: int) -> int:
    """By the cores that each of so many processes on this host can have."""
    num_files = sum(sample.pixels is None for sample in samples)
    if num_files < MIN_FILES_FOR_WORKERS:
        return 0
    return min(max(available_cores() // processes - 1, 1), MAX_AUTO_WORKERS)
