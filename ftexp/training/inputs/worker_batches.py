"""Batches of images that are transformed one by one, in worker processes or in the main process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import DataLoader

from ftexp.data.loading.dataset import ImageDataset
from ftexp.data.loading.sampler import EpochSampler
from ftexp.data.samples import Sample
from ftexp.errors import UserError
from ftexp.machine.accelerator import is_accelerator
from ftexp.machine.cores import available_cores
from ftexp.training.inputs.batches import Batch, BatchContext

# With fewer files than this, starting processes takes longer than decoding.
MIN_FILES_FOR_WORKERS = 256
MAX_AUTO_WORKERS = 16


class WorkerBatches:
    """Batches whose images are decoded (unless decoded images are cached) and transformed one by one.

    Order and augmentation depend only on (seed, epoch, index of the sample), so the batches are the same for any number
    of processes. Nothing is read and no process is started before the first epoch; then the processes stay alive.
    """

    def __init__(self, dataset: ImageDataset, sampler: EpochSampler, context: BatchContext) -> None:
        self._dataset = dataset
        self._context = context
        self._keys = _Keys(sampler)
        self._loader: DataLoader[Batch] | None = None
        self._is_closed = False
        self.sampler = sampler
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.num_images, self.paths = sampler.num_images, sampler.paths

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Images and labels; ``epoch`` decides the augmentation, and the order where the sampler shuffles."""
        yield from self._context.normalised(self._own_parts(epoch, start))

    def part(self, epoch: int, start: int, stop: int) -> Iterator[Batch]:
        """As ``epoch``, from batch ``start`` up to ``stop``."""
        yield from self._context.normalised(self._loaded(epoch, start, stop))

    @property
    def num_workers(self) -> int:
        """Number of worker processes; 0 if there is nothing to decode, or if starting them would take longer."""
        workers = self._context.runtime.workers
        if not isinstance(workers, str):
            return workers
        if self._dataset.is_decoded and not self._pins_memory:
            return 0
        return _auto_workers(self.sampler.samples, self.sampler.settings.ranks.local_size)

    def close(self) -> None:
        """Release the images and the loader, whose last reference ends the worker processes."""
        self._loader = None
        self._dataset.close()
        self._is_closed = True

    @property
    def _pins_memory(self) -> bool:
        return is_accelerator(self._context.runtime.device)

    def _start(self) -> DataLoader[Batch]:
        return DataLoader(
            self._dataset,
            batch_sampler=self._keys,
            num_workers=self.num_workers,
            collate_fn=_collate,
            pin_memory=self._pins_memory,
            persistent_workers=self.num_workers > 0,
            # A generator of its own, so that making an iterator does not advance the global one.
            generator=torch.Generator(),
        )

    def _loaded(self, epoch: int, start: int, stop: int | None = None) -> Iterator[Batch]:
        """This rank's part of each batch that has one."""
        assert not self._is_closed, "the batches have been closed"
        self._dataset.open_pixels()
        if self._loader is None:
            self._loader = self._start()
        self._keys.epoch, self._keys.batches = epoch, slice(start, stop)
        yield from _clear_errors(self._loader)

    def _own_parts(self, epoch: int, start: int) -> Iterator[Batch]:
        """This rank's part of each batch; empty if the last batch has fewer images than there are ranks."""
        yield from self._loaded(epoch, start)
        if self.num_images(self.num_batches - 1) <= self.sampler.settings.ranks.rank:
            image, _ = self._dataset[(epoch, 0)]
            yield image.new_empty(0, *image.shape), self.sampler.labels[:0]


class _Keys:
    """The keys (epoch, index) of this rank's images in each batch; they tell persistent workers the epoch."""

    def __init__(self, sampler: EpochSampler) -> None:
        self._sampler = sampler
        self.epoch = 0
        self.batches = slice(None)  # of a resumed epoch, those that are left

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, parts = self.epoch, self._sampler.own_batches(self.epoch)[self.batches]
        return ([(epoch, index) for index in part] for part in parts if part)


def _clear_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Raise an error of a worker process without the traceback that torch adds to its message."""
    try:
        yield from batches
    except UserError as error:  # from a worker: a traceback, with the message in the last line
        raise type(error)(str(error).strip().splitlines()[-1].removeprefix(f"{_full_name(error)}: ")) from None


def _full_name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _collate(items: list[Batch]) -> Batch:
    images, labels = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels)


def _auto_workers(samples: Sequence[Sample], processes: int) -> int:
    """Number of workers for one of ``processes`` processes on this host, from the available cores."""
    files = (sample for sample in samples if sample.pixels is None)
    if len(list(islice(files, MIN_FILES_FOR_WORKERS))) < MIN_FILES_FOR_WORKERS:
        return 0
    return min(max(available_cores() // processes - 1, 1), MAX_AUTO_WORKERS)
