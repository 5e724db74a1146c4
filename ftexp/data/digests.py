"""The content of an image as a short name."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftexp.data.samples import Sample

DIGEST_BYTES = 16
# A file may change without a trace in its times within their steps, which are two seconds on the coarsest of file
# systems: of a file that changed so recently, nothing is remembered.
SETTLED_NS = 2 * 10**9


class ContentDigests:
    """Names images by their content, and reads each file once as long as nobody changes it.

    Whether a file is as it was is told from its inode, its size and its times, as git does it. An image takes about
    150 bytes, its path aside, which is the sample's own.
    """

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}  # path -> digest of the content, then of the file's state

    def of(self, sample: Sample) -> str:
        """Of the file's bytes, or of the pixels where there is no file: 32 hexadecimal digits.

        With a white level they are followed by it: the same bytes are then another image.

        Raises:
            OSError: when the file cannot be read.
        """
        if sample.pixels is not None:
            return pixel_digest(sample.pixels)
        digest = self.of_file(sample.path)
        return digest if sample.white_level is None else f"{digest} white {sample.white_level!r}"

    def of_file(self, path: str) -> str:
        """Of a file's bytes.

        Raises:
            OSError: when it cannot be read.
        """
        now, state = time.time_ns(), os.stat(path)
        known = self._known.get(path)
        if known is not None and known[DIGEST_BYTES:] == _short(state):
            return known[:DIGEST_BYTES].hex()
        digest = hashlib.blake2b(Path(path).read_bytes(), digest_size=DIGEST_BYTES).digest()
        if now - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
            self._known[path] = digest + _short(state)
        return digest.hex()


def _short(state: os.stat_result) -> bytes:
    facts = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).digest()


def bytes_digest(content: bytes) -> str:
    """Of a file's bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def pixel_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Of a decoded image, its shape included."""
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
