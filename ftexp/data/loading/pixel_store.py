"""The cache of decoded images: every file is decoded and resized once, for all epochs, phases, trials and runs.

It contains the output of the part of a transform that is not random (``ImageTransform.prepare``), bit for bit, so
training has the same images with the cache and without it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from itertools import chain, islice

import numpy as np
import numpy.typing as npt
import torch
import torchvision

from ftexp.data.augment.transforms import ImageTransform
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.decoding import decoders
from ftexp.data.loading.images import open_image
from ftexp.data.loading.kept_pixels import Pixels
from ftexp.data.loading.tensor_file import Kept
from ftexp.data.loading.tensor_store import StoreError, StoreFullError, TensorStore, Unfinished
from ftexp.data.samples import Sample
from ftexp.machine.cores import available_cores

log = logging.getLogger(__name__)

# Part of every key; increase it when the content changes, so that older files are not used.
VERSION = 4
# Images that are decoded ahead or written at once: enough to keep the threads busy, few enough for the memory.
CHUNK = 256

UInt8Image = npt.NDArray[np.uint8]


class PixelSource:
    """Decodes the prepared images of samples once, and keeps them if they fit into the store.

    Args:
        samples: the samples whose images are prepared.
        transform: its ``prepare`` makes the images.
        store: keeps the images; it can be too small for them.
        digests: the digests of the images.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: ImageTransform,
        store: TensorStore,
        digests: ContentDigests,
    ) -> None:
        self._samples = samples
        self._transform = transform
        self._store = store
        self._digests = digests
        self.pixels: Pixels | None = None
        self.fits = True  # until it is known that they do not
        # Called with the images when they are available. It must not refer to the owner of this source: such a cycle
        # would keep the images alive after their phase.
        self.when_opened: Callable[[Pixels], object] = lambda _: None

    @cached_property
    def _key(self) -> str:
        """The key of the images in the store, by their content when it is first needed."""
        facts = ["pixels", VERSION, self._transform.prepared_as, torchvision.__version__, decoders()]
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        for sample in self._samples:
            digest.update(self._digests.of(sample).encode())
        return digest.hexdigest()

    @property
    def is_kept(self) -> bool:
        """Whether all images have been decoded already."""
        return self.pixels is not None or self._store.holds(self._key)

    def open(self) -> Pixels | None:
        """Get all images, which are decoded now if they are not kept yet.

        Returns:
            The images; None, after a log message, if they do not fit into the store.

        Raises:
            DataError: when a file cannot be decoded.
        """
        if self.pixels is None and self.fits:
            for _ in self.first_pass([]):
                pass
        return self.pixels

    def close(self) -> None:
        """Release the images."""
        self.pixels = None

    def first_pass(self, batches: Sequence[Sequence[int]]) -> Iterator[list[UInt8Image]]:
        """Yield one epoch of prepared images [H, W, 3] while they are decoded; afterwards ``pixels`` has all of them.

        Args:
            batches: the indices of the samples in each batch, each at most once; all other samples are decoded after
                the last batch.

        Raises:
            DataError: when a file cannot be decoded.
        """
        started = time.perf_counter()
        with self._store.place(self._key) as place:
            if isinstance(place, Kept):
                self._open(place)
                yield from ([self._array(index) for index in indices] for indices in batches)
                return
            kept = yield from self._decode(batches, place)
            self.fits = kept is not None
            if kept is not None:
                # If training runs at the same time, the time of decoding alone is unknown.
                how = "as they were first used" if batches else f"once, {time.perf_counter() - started:.1f} s"
                mib = kept.rows.nbytes / 2**20
                log.info("pixels  %d images decoded %s; they take %.1f MiB", len(self._samples), how, mib)
                self._open(kept)

    def _decode(
        self, batches: Sequence[Sequence[int]], place: Unfinished
    ) -> Generator[list[UInt8Image], None, Kept | None]:
        """Yield the batches, and write them and all other images; returns None if they do not fit."""
        shown = np.fromiter(chain.from_iterable(batches), np.int64)
        rest = np.setdiff1d(np.arange(len(self._samples)), shown)
        order = np.concatenate([shown, rest])
        lengths = [*map(len, batches), *(len(rest[start : start + CHUNK]) for start in range(0, len(rest), CHUNK))]
        sizes, fits = np.zeros((len(order), 2), np.int64), True
        with closing(_prepared_ahead(self._prepare, map(int, order))) as images:
            for number, (end, length) in enumerate(zip(np.cumsum(lengths).tolist(), lengths, strict=True)):
                part = list(islice(images, length))
                sizes[end - length : end] = [image.shape[:2] for image in part]
                try:
                    if fits:
                        self._write(part, place)
                except StoreFullError as reason:
                    log.info("pixels  off: the decoded images would take %s", reason)
                    fits = False
                except StoreError:  # the store has logged it
                    fits = False
                if number < len(batches):
                    yield part
                if not fits and number + 1 >= len(batches):
                    return None
        try:
            return place.finish({"sizes": torch.from_numpy(sizes), "order": torch.from_numpy(order)})
        except StoreError:
            return None

    def _prepare(self, index: int) -> UInt8Image:
        return np.array(self._transform.prepare(open_image(self._samples[index])))

    def _write(self, part: list[UInt8Image], place: Unfinished) -> None:
        flat = np.concatenate([image.reshape(-1) for image in part])
        expected = flat.nbytes / len(part) * len(self._samples)
        if expected > self._store.limit_bytes:
            raise StoreFullError(f"{expected / 2**30:.1f} GiB, more than runtime.cache_gib")
        place.append(torch.from_numpy(flat))

    def _open(self, kept: Kept) -> None:
        self.pixels = Pixels(kept)
        self.when_opened(self.pixels)

    def _array(self, index: int) -> UInt8Image:
        assert self.pixels is not None
        return self.pixels.tensor(index).cpu().numpy()


def _prepared_ahead(prepare: Callable[[int], UInt8Image], order: Iterable[int]) -> Generator[UInt8Image, None, None]:
    """Yield images in an order; threads decode up to ``CHUNK`` images ahead."""
    # Threads are enough, because Pillow releases the GIL while it decodes and resizes.
    pool = ThreadPoolExecutor(available_cores())
    waiting: deque[Future[UInt8Image]] = deque()
    try:
        for index in order:
            waiting.append(pool.submit(prepare, index))
            if len(waiting) > CHUNK:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
