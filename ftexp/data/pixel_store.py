"""Decoded images kept on disk: every file is decoded and resized once, for all epochs, phases, trials and runs.

What is kept is what a view gives before anything in it is random (``View.prepare``), bit for bit, so training sees the
same images with it and without.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor

from ftexp.data.digests import content_digest
from ftexp.data.images import open_image
from ftexp.data.samples import Sample
from ftexp.data.tensor_store import Append, Kept, StoreFullError, TensorStore
from ftexp.data.transforms import View

log = logging.getLogger(__name__)

# Part of every key: a change of what is kept makes older files unknown.
VERSION = 1
# Images decoded before the first are written: enough to keep the threads busy, few enough to keep memory flat.
CHUNK = 256


class Pixels:
    """The prepared images of some samples: rows of bytes in a memory map, and the sizes of the images."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._sizes = kept.notes["sizes"]
        self._ends = self._sizes.prod(dim=1).mul(3).cumsum(0)
        height, width = self._sizes[0].tolist()
        self._grid: Tensor | None = None
        if bool((self._sizes == self._sizes[0]).all()):
            self._grid = kept.rows.view(-1, height, width, 3)

    def image(self, index: int) -> Image.Image:
        """One prepared image."""
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        flat = self._kept.rows[end - height * width * 3 : end]
        return Image.fromarray(flat.view(height, width, 3).numpy())

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Images of one size: uint8 [B, 3, H, W], channels last in memory, on the device they are kept on."""
        assert self._grid is not None, "images of several sizes make no batch"
        images = self._grid.index_select(0, torch.tensor(indices, device=self._grid.device)).permute(0, 3, 1, 2)
        self._kept.release()
        return images

    def move(self, device: torch.device, room_bytes: int) -> bool:
        """Keep the images on a device from now on, if they are of one size and no more than ``room_bytes``."""
        if self._grid is None or self._grid.nbytes > room_bytes:
            return False
        self._grid = self._grid.to(device, copy=True)
        self._kept.release()
        return True


def prepared_pixels(samples: Sequence[Sample], view: View, store: TensorStore) -> Pixels | None:
    """The prepared images of samples, decoded now if they are not kept yet; None, with a line, where they do not fit.

    Raises:
        DataError: when a file cannot be decoded.
    """
    started = time.perf_counter()
    try:
        kept = store.get(_key(samples, view), lambda append: _decode(samples, view, append, store.limit_bytes))
    except StoreFullError as reason:
        log.info("pixels  off: the decoded images would take %s", reason)
        return None
    if not kept.found:
        seconds, mib = time.perf_counter() - started, kept.rows.nbytes / 2**20
        log.info("pixels  %d images decoded once, %.1f s; they take %.1f MiB", len(samples), seconds, mib)
    return Pixels(kept)


def _decode(samples: Sequence[Sample], view: View, append: Append, limit_bytes: int) -> Mapping[str, Tensor]:
    sizes: list[tuple[int, int]] = []

    def prepare(sample: Sample) -> npt.NDArray[np.uint8]:
        return np.asarray(view.prepare(open_image(sample)))

    # Threads: Pillow lets go of the interpreter lock while it decodes and resizes.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        left = iter(samples)
        while chunk := list(islice(left, CHUNK)):
            images = list(pool.map(prepare, chunk))
            sizes += [image.shape[:2] for image in images]
            flat = np.concatenate([image.reshape(-1) for image in images])
            expected = flat.nbytes / len(chunk) * len(samples)
            if expected > limit_bytes:
                raise StoreFullError(f"{expected / 2**30:.1f} GiB, more than runtime.cache_gib")
            append(torch.from_numpy(flat))
    return {"sizes": torch.tensor(sizes, dtype=torch.int64)}


def _key(samples: Sequence[Sample], view: View) -> str:
    facts = ["pixels", VERSION, view.prepared_as, torchvision.__version__, PIL.__version__]
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for sample in samples:
        digest.update(content_digest(sample).encode())
    return digest.hexdigest()
