"""Digests (short hashes) of the content of images."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import numpy.typing as npt

from ftexp.data.path_map import PathMap
from ftexp.data.places import FileState, Place
from ftexp.data.samples import Sample

DIGEST_BYTES = 16
STATE_BYTES = 8
# The times of a file have steps of up to two seconds, depending on the file system, and a second change within one step
# cannot be seen. So the digest of a file that changed more recently than this is not remembered.
SETTLED_NS = 2 * 10**9


class ContentDigests:
    """Computes the digests of images, and reads each file only once unless it changes.

    A file counts as unchanged if its inode, size and times are the same, as in git, so that all machines that mount its
    file system agree; one at a URL, as long as the process lives. An image takes about 70 bytes of memory.
    """

    def __init__(self) -> None:
        self._known = PathMap(DIGEST_BYTES + STATE_BYTES)  # the digests of the content and of the file's state

    def of(self, sample: Sample) -> str:
        """The digest of a sample's file, or of its pixels if it has no file.

        Returns:
            32 hexadecimal digits. A white level is appended, because with it the same bytes are another image.

        Raises:
            OSError: when the file cannot be read.
        """
        if sample.pixels is not None:
            return pixel_digest(sample.pixels)
        digest = self.of_place(sample.path, sample.origin)
        return digest if sample.white_level is None else f"{digest} white {sample.white_level!r}"

    def of_place(self, path: str, place: Place) -> str:
        """The digest of the bytes of an image.

        Args:
            path: the path of its file, or its unique name.
            place: where the bytes are.

        Raises:
            OSError: when they cannot be read.
        """
        now, state = time.time_ns(), place.state()
        known = self._known.get(path)
        if known is not None and known[DIGEST_BYTES:] == _short(state):
            return known[:DIGEST_BYTES].hex()
        digest = hashlib.blake2b(place.read(), digest_size=DIGEST_BYTES).digest()
        if now - state.changed_ns > SETTLED_NS:
            self._known.put(path, digest + _short(state))
        return digest.hex()


def _short(state: FileState) -> bytes:
    return hashlib.blake2b(repr(state.facts).encode(), digest_size=STATE_BYTES).digest()


def of_bytes(digest: str) -> str:
    """The part of a digest that is of the bytes alone, whatever their white level."""
    return digest.partition(" white ")[0]


def bytes_digest(content: bytes) -> str:
    """The digest of the bytes of a file that has been read already."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def pixel_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """The digest of a decoded image, uint8 [H, W, 3], including its shape."""
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
