"""Images as a caller has them: paths, folders, globs, bytes, PIL images, arrays, tensors, and iterables of these."""

from __future__ import annotations

import glob
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ftexp.data.loading.decoding import decode
from ftexp.data.loading.images import ImageLimits, why_unreadable
from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.folders import folders_below, open_root
from ftexp.errors import DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# No more of a file is decoded than a run would train on.
_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class GivenImage:
    """One image, not yet opened.

    Attributes:
        content: a path, the bytes of a file, a PIL image, an array or a tensor.
        path: where ``content`` is a path.
        white_level: see ``decode``; None: that of whoever opens it.
    """

    content: object
    path: str | None = None
    white_level: float | None = None

    def open(self, white_level: float | None = None) -> Image.Image:
        """The image as RGB of 8 bits; see ``open_given``."""
        return open_given(self.content, self.white_level if self.white_level is not None else white_level)


def given_images(images: object) -> Iterator[GivenImage]:
    """Every single image of what was given, in order; nothing is opened, and nothing is read ahead.

    Args:
        images: a path, a folder (with all folders below it), a glob such as ``photos/*.jpg``, the bytes of a file, a
            PIL image, an array [H, W], [H, W, 3] or [H, W, 4] or a batch of arrays [B, H, W, 3], a tensor [3, H, W] or
            a batch of tensors [B, 3, H, W], or an iterable of any of these.

    Raises:
        DataError: for a folder without images, a glob that matches nothing, a URL, or a thing of another type.
    """
    if isinstance(images, GivenImage):
        yield images
    elif isinstance(images, (str, os.PathLike)):
        yield from (GivenImage(path, path) for path in _files(os.fspath(images)))
    elif isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4:
        yield from (GivenImage(image) for image in images)
    elif isinstance(images, (bytes, bytearray, memoryview, Image.Image, np.ndarray, torch.Tensor)):
        yield GivenImage(images)
    elif isinstance(images, Iterable) and not isinstance(images, dict):
        for image in images:
            yield from given_images(image)
    else:
        raise DataError(f"{_shown(images)} is no image. {_ALLOWED}")


def open_given(image: object, white_level: float | None = None) -> Image.Image:
    """One image as RGB of 8 bits.

    Args:
        image: a path, the bytes of a file, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4] of whole numbers from 0
            to 255 (nested lists, which JSON makes of an array, count as one), or a tensor [3, H, W] or [1, H, W] of
            such numbers, or of floats from 0 to 1, torchvision's two conventions.
        white_level: see ``decode``.

    Raises:
        DataError: when it is none of these, or cannot be decoded.
    """
    if isinstance(image, Image.Image):
        return _on_white(image)
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    if isinstance(image, (np.ndarray, list)):
        return _from_array(np.asarray(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        file: str | io.BytesIO = io.BytesIO(image)
    elif isinstance(image, (str, os.PathLike)):
        file = os.fspath(image)
    else:
        raise DataError(f"{_shown(image)} is no image. {_ALLOWED}")
    try:
        if isinstance(file, str) and (too_large := _LIMITS.exceeded_by_file(os.stat(file).st_size)):
            raise ValueError(too_large)
        return decode(file, white_level)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        if isinstance(file, str):
            raise DataError(f"{file}: {why_unreadable(error, file)}") from error
        raise DataError(f"These bytes are no image: {type(error).__name__}: {error}") from error


_ALLOWED = (
    "An image is a path, a folder, a glob, the bytes of a file, a PIL image, an array [H, W, 3] or [H, W] of uint8, a "
    "tensor [3, H, W], or an iterable of these."
)


def _files(path: str) -> Iterator[str]:
    """The image files that a path, a folder or a glob stands for."""
    if _URL.match(path):
        raise DataError(f"{path} is a URL, and ftexp downloads no images. Download it; give its path or its bytes.")
    if os.path.isdir(path):
        found = False
        for _, folder in folders_below(open_root(path)):
            for file in folder.paths(sorted_naturally(folder.images)):
                found = True
                yield file
        if not found:
            raise DataError(f"{path} is a folder without images.")
    elif glob.has_magic(path) and not os.path.exists(path):
        matches = sorted_naturally(glob.glob(os.path.expanduser(path), recursive=True))
        if not matches:
            raise DataError(f"{path} matches no file.")
        for match in matches:
            yield from _files(match) if os.path.isdir(match) else (match,)
    else:
        yield os.path.expanduser(path)


def _from_tensor(given: torch.Tensor) -> Image.Image:
    if given.ndim != 3 or given.shape[0] not in (1, 3):
        raise DataError(f"A tensor of shape {list(given.shape)} is no image: it has to be [3, H, W] or [1, H, W].")
    values = given.detach().cpu()
    if values.is_floating_point():
        values = values.float()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise DataError(
                "A tensor of floats is an image when its values are between 0 and 1. This one has others: give the "
                "image before it is normalised, or whole numbers from 0 to 255."
            )
        values = (values * 255).round()
    return _from_array(values.expand(3, -1, -1).permute(1, 2, 0).numpy())


def _from_array(given: npt.NDArray[Any]) -> Image.Image:
    if given.ndim not in (2, 3) or given.shape[2:] not in ((), (3,), (4,)) or not given.size:
        raise DataError(f"An array of shape {list(given.shape)} is no image: it has to be [H, W, 3] or [H, W].")
    numbers = given.dtype.kind in "uifb"
    pixels = given.astype(np.uint8) if numbers and given.min() >= 0 and given.max() <= 255 else None
    if pixels is None or not np.array_equal(pixels, given):
        raise DataError(f"An array of {given.dtype} is an image when its values are whole numbers from 0 to 255.")
    return _on_white(Image.fromarray(pixels))


def _on_white(image: Image.Image) -> Image.Image:
    """RGB; transparency lies on white, as in files."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _shown(given: object) -> str:
    return f"{str(given)[:80]!r} of type {type(given).__name__}"
