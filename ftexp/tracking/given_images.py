"""Images as a program hands them to a model: paths, the bytes of files, or arrays."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftexp.data.loading.decoding import decode
from ftexp.data.loading.images import why_unreadable
from ftexp.errors import DataError


def open_given(image: object, row: object, white_level: float | None) -> Image.Image:
    """One image as RGB of 8 bits.

    Args:
        image: a path, the content of a file, or an array [H, W], [H, W, 3] or [H, W, 4] of whole numbers from 0 to 255;
            nested lists, which JSON makes of an array, count as one.
        row: where it stands, for messages.
        white_level: see ``decode``.

    Raises:
        DataError: when it is none of these, or cannot be decoded.
    """
    if isinstance(image, (np.ndarray, list)):
        return _from_array(np.asarray(image), row)
    if isinstance(image, (bytes, bytearray, memoryview)):
        file: str | io.BytesIO = io.BytesIO(image)
    elif isinstance(image, (str, os.PathLike)):
        file = str(image)
    else:
        raise DataError(
            f"Row {row} holds {image!r} of type {type(image).__name__}. An image is a path, the bytes of a file, or an "
            "array [H, W, 3] or [H, W] of uint8."
        )
    try:
        return decode(file, white_level)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        in_memory = isinstance(file, io.BytesIO)
        reason = f"{type(error).__name__}: {error}" if in_memory else f"{file}: {why_unreadable(error, str(file))}"
        raise DataError(f"Row {row}{' holds bytes that are no image' if in_memory else ''}: {reason}") from error


def _from_array(given: npt.NDArray[Any], row: object) -> Image.Image:
    if given.ndim not in (2, 3) or given.shape[2:] not in ((), (3,), (4,)) or not given.size:
        raise DataError(f"Row {row} holds an array of shape {list(given.shape)}, not [H, W, 3] or [H, W].")
    numbers = given.dtype.kind in "uifb"
    pixels = given.astype(np.uint8) if numbers and given.min() >= 0 and given.max() <= 255 else None
    if pixels is None or not np.array_equal(pixels, given):
        raise DataError(
            f"Row {row} holds an array of {given.dtype} with other values than whole numbers from 0 to 255."
        )
    image = Image.fromarray(pixels)
    if image.mode == "RGBA":  # as in files: transparency lies on white
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
