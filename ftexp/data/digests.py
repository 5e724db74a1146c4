"""The content of an image as a short name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ftexp.data.samples import Sample


def content_digest(sample: Sample) -> str:
    """Of the file's bytes, or of the pixels where there is no file: 32 hexadecimal digits.

    With a white level they are followed by it: the same bytes are then another image.
    """
    if sample.pixels is not None:
        return pixel_digest(sample.pixels)
    digest = bytes_digest(Path(sample.path).read_bytes())
    return digest if sample.white_level is None else f"{digest} white {sample.white_level!r}"


def bytes_digest(content: bytes) -> str:
    """Of a file's bytes."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def pixel_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """Of a decoded image, its shape included."""
    digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
