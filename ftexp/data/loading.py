"""Batches of uint8 images, the same bits for any number of worker processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ftexp.data.images import open_image
from ftexp.data.order import EpochOrder
from ftexp.data.pixel_store import Pixels
from ftexp.data.samples import Sample
from ftexp.data.transforms import View
from ftexp.errors import UserError
from ftexp.ranks import ALONE, Ranks

# Below this many files, starting processes takes longer than decoding.
MIN_FILES_FOR_WORKERS = 256
MAX_AUTO_WORKERS = 16

OpenPixels = Callable[[], Pixels | None]


class Loader:
    """Iterating gives ``(images, labels)``: uint8 batch x 3 x height x width, and int64 class numbers.

    Order and augmentation follow from (seed, epoch, index of the sample) alone. Of every batch the loader gives the
    part of its rank. Nothing is read and no process is started before the first iteration.
    """

    def __init__(self, images: _Images, order: EpochOrder, settings: _Settings) -> None:
        self._images = images
        self._order = order
        self._settings = settings
        self._batches: DataLoader[tuple[Tensor, Tensor]] | None = None
        self._is_open, self._is_closed = False, False
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
        if not self._is_open:
            self._images.open_pixels()
            self._is_open = True
        if self._images.makes_batches:
            return self._whole_batches()
        if self._batches is None:
            self._batches = self._start()
        return _clear_errors(self._batches)

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
        """End the worker processes; they end with the last reference to the data loader."""
        self._batches, self._is_closed = None, True

    def _whole_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        first = self._order.first // self._own_size
        return (self._images.batch(indices) for indices in self.own_indices(self._order.epoch)[first:])

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
    view: View,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    workers: int | str,
    pin_memory: bool,
    drop_last: bool = False,
    balanced: bool = False,
    views: int | None = None,
    open_pixels: OpenPixels | None = None,
    ranks: Ranks = ALONE,
) -> Loader:
    """Put samples, their view and an order together.

    Args:
        batch_size: over all ranks, which it has to be a multiple of.
        drop_last: leave out a last batch that is smaller than the others.
        balanced: with ``shuffle``: every class equally often in an epoch of as many samples.
        workers: processes that decode; 0: this one; ``auto``: by the source, its size and the cores.
        views: how many there are of an image, of which epoch e shows number e modulo ``views``; None: every epoch its
            own.
        open_pixels: gives the prepared images of the samples, if they are kept; called at the first iteration.
        ranks: which part of every batch is wanted.
    """
    classes = np.array([class_to_idx[sample.label] for sample in samples]) if balanced else None
    used = len(samples) - len(samples) % batch_size if drop_last else len(samples)
    order = EpochOrder(len(samples), used, shuffle, seed, classes, ranks)
    images = _Images(samples, class_to_idx, view, seed, views, open_pixels)
    return Loader(images, order, _Settings(batch_size, workers, pin_memory, ranks))


class _Images(Dataset[tuple[Tensor, Tensor]]):
    def __init__(
        self,
        samples: Sequence[Sample],
        class_to_idx: Mapping[str, int],
        view: View,
        seed: int,
        views: int | None,
        open_pixels: OpenPixels | None,
    ) -> None:
        self.samples = samples
        self.labels = torch.tensor([class_to_idx[sample.label] for sample in samples], dtype=torch.int64)
        self._view = view
        self._seed = seed
        self._views = views
        self._open_pixels = open_pixels
        self._pixels: Pixels | None = None

    def open_pixels(self) -> None:
        """Find out whether the prepared images are kept."""
        if self._open_pixels is not None:
            self._pixels, self._open_pixels = self._open_pixels(), None

    @property
    def is_decoded(self) -> bool:
        """Whether no image has to be decoded any more."""
        return self._pixels is not None

    @property
    def makes_batches(self) -> bool:
        """Whether whole batches are there to be taken."""
        return self.is_decoded and not self._view.is_random

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Images and labels, where ``makes_batches``."""
        assert self._pixels is not None
        return self._pixels.batch(indices), self.labels[indices]

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        number = epoch if self._views is None else epoch % self._views
        if self._pixels is not None:
            image = self._pixels.image(index)
        else:
            image = self._view.prepare(open_image(self.samples[index]))
        # Augmentations draw from torch's global generator: lend it a state of this view's own.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(_mix(self._seed, number, index))
        try:
            return self._view.change(image), self.labels[index]
        finally:
            torch.set_rng_state(state)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _collate(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def _auto_workers(samples: Sequence[Sample], processes: int) -> int:
    """By the cores that each of so many processes on this host can have."""
    num_files = sum(sample.pixels is None for sample in samples)
    if num_files < MIN_FILES_FOR_WORKERS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // processes - 1, 1), MAX_AUTO_WORKERS)
