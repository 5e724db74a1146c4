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
from PIL import Image, ImageFile

from ftexp.data.loading.decoding import as_rgb, decode_opened, open_lazily
from ftexp.data.loading.images import ImageLimits, why_unreadable
from ftexp.data.places import Place
from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.folders import folders_below, open_root
from ftexp.errors import DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GivenImage:
    """One image, not yet opened.

    Attributes:
        content: a path, a place, the bytes of a file, a PIL image, an array or a tensor.
        path: the name of the image, where it has one; of a file its path.
        white_level: see ``decode``; None: that of whoever opens it.
    """

    content: object
    path: str | None = None
    white_level: float | None = None

    def open(self, white_level: float | None = None, limits: ImageLimits | None = None) -> Image.Image:
        """The image as RGB of 8 bits; see ``open_given``."""
        own = self.white_level if self.white_level is not None else white_level
        if isinstance(self.content, Place):
            return _from_place(self.content, self.path or "", own, limits or ImageLimits())
        return open_given(self.content, own, limits)


def given_images(images: object) -> Iterator[GivenImage]:
    """Every single image of what was given, in order; nothing is opened, and nothing is read ahead.

    Args:
        images: a path, a folder (with all folders below it), a glob such as ``photos/*.jpg``, the bytes of a file, a
            PIL image, an array [H, W], [H, W, 3] (RGB) or [H, W, 4] or a batch of arrays [B, H, W, 3], a tensor
            [3, H, W] or a batch of tensors [B, 3, H, W], or an iterable of any of these.

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


def open_given(image: object, white_level: float | None = None, limits: ImageLimits | None = None) -> Image.Image:
    """One image as RGB of 8 bits, upright and without transparency, as a run decodes it.

    Args:
        image: a path, the bytes of a file, a PIL image, an array [H, W], [H, W, 3] (RGB) or [H, W, 4] of whole numbers
            from 0 to 255 (nested lists, which JSON makes of an array, count as one), or a tensor [3, H, W] or
            [1, H, W] of such numbers, or of floats from 0 to 1, torchvision's two conventions.
        white_level: see ``decode``.
        limits: beyond which no file is decoded; None: those that a run has by default.

    Raises:
        DataError: when it is none of these, or cannot be decoded.
    """
    if isinstance(image, torch.Tensor):
        return _from_tensor(image)
    if isinstance(image, (np.ndarray, list)):
        return _from_array(np.asarray(image))
    path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
    try:
        if isinstance(image, Image.Image):
            return _from_pil(image, white_level)
        if path is not None:
            return _from_file(path, os.stat(path).st_size, white_level, limits or ImageLimits())
        if isinstance(image, (bytes, bytearray, memoryview)):
            return _from_file(io.BytesIO(image), len(image), white_level, limits or ImageLimits())
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        if path is not None:
            reason = str(error) if isinstance(error, DataError) else why_unreadable(error, path)
            raise DataError(f"{path}: {reason}") from error
        what = "This PIL image cannot be read" if isinstance(image, Image.Image) else "These bytes are no image"
        raise DataError(f"{what}: {error} ({type(error).__name__})") from error
    raise DataError(f"{_shown(image)} is no image. {_ALLOWED}")


_ALLOWED = (
    "An image is a path, a folder, a glob, the bytes of a file, a PIL image, an array [H, W, 3] or [H, W] of uint8, a "
    "tensor [3, H, W], or an iterable of these."
)


def _from_file(
    file: str | io.BytesIO, num_bytes: int, white_level: float | None, limits: ImageLimits, name: str = ""
) -> Image.Image:
    if (too_large := limits.exceeded_by_file(num_bytes)) is not None:
        raise DataError(too_large)
    with open_lazily(file, name) as image:
        if (too_large := limits.exceeded_by_pixels(image.width, image.height)) is not None:
            raise DataError(too_large)
        return decode_opened(image, white_level).image


def _from_place(place: Place, name: str, white_level: float | None, limits: ImageLimits) -> Image.Image:
    content = None
    try:
        content = limits.read(place)
        return _from_file(io.BytesIO(content), len(content), white_level, limits, name)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
        reason = str(error) if isinstance(error, DataError) else why_unreadable(error, name, content)
        raise DataError(f"{name}: {reason}") from error


def _from_pil(image: Image.Image, white_level: float | None) -> Image.Image:
    """As the file that it was opened from: turned by the orientation that it still carries."""
    if isinstance(image, ImageFile.ImageFile) and image.tile:  # not decoded yet
        return decode_opened(image, white_level).image
    return as_rgb(image, white_level)


def _files(path: str) -> Iterator[str]:
    """The image files that a path, a folder or a glob stands for."""
    if _URL.match(path):
        raise DataError(f"{path} is a URL, and ftexp downloads no images. Download it; give its path or its bytes.")
    if os.path.isdir(path):
        found = False
        for _, folder in folders_below(open_root(path)):
            names = sorted_naturally(folder.images)
            folder.images, folder.others = [], []  # a folder stays known; of a million images, the names need not
            for name in names:
                found = True
                yield folder.join(name)
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
    numbers = given.dtype.kind in "uif"
    pixels = given.astype(np.uint8) if numbers and given.min() >= 0 and given.max() <= 255 else None
    if pixels is None or not np.array_equal(pixels, given):
        raise DataError(f"An array of {given.dtype} is an image when its values are whole numbers from 0 to 255.")
    return as_rgb(Image.fromarray(pixels))


def _shown(given: object) -> str:
    return f"{str(given)[:80]!r} of type {type(given).__name__}"
