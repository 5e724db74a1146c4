"""Images as a caller has them: names of files, bytes, PIL images, arrays, tensors, and iterables of these."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile

from ftexp.data.loading.decoding import as_rgb, decode_opened
from ftexp.data.loading.images import open_place
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.places import InMemory, LocalFile, Place
from ftexp.data.samples import Sample
from ftexp.data.sources.named_images import named_images
from ftexp.data.sources.parts import Parts
from ftexp.errors import DataError


@dataclass(frozen=True, slots=True)
class GivenImage:
    """One image, not yet opened.

    Attributes:
        content: where its bytes are, or what a caller gave: bytes, a PIL image, an array or a tensor.
        path: the path of its file, or its unique name; None where it has none.
        white_level: see ``decode_opened``; None: that of whoever opens it.
    """

    content: object
    path: str | None = None
    white_level: float | None = None

    @classmethod
    def of(cls, sample: Sample) -> GivenImage:
        """The image of a sample."""
        content = sample.origin if sample.pixels is None else sample.pixels
        return cls(content, sample.path, sample.white_level)

    @classmethod
    def of_file(cls, path: str) -> GivenImage:
        """A file of this machine, whatever its path looks like."""
        return cls(LocalFile(path), path)

    def open(self, white_level: float | None = None, limits: ImageLimits | None = None) -> Image.Image:
        """Decode it to RGB of 8 bits, upright and without transparency, as a run does.

        Args:
            white_level: see ``decode_opened``; of an image that has one of its own, that counts.
            limits: beyond which no file is decoded; None: those that a run has by default.

        Raises:
            DataError: when it cannot be read or decoded, or ``content`` is no image.
        """
        white, image = white_level if self.white_level is None else self.white_level, self.content
        if isinstance(image, Place):
            return open_place(image, self.path or "", white, limits or ImageLimits())
        if isinstance(image, (bytes, bytearray, memoryview)):
            return open_place(InMemory(bytes(image)), "These bytes", white, limits or ImageLimits())
        if isinstance(image, Image.Image):
            return _from_pil(image, white)
        if isinstance(image, torch.Tensor):
            return _from_tensor(image)
        if isinstance(image, (np.ndarray, list)):  # JSON makes lists of an array
            return _from_array(np.asarray(image))
        raise DataError(f"{_shown(image)} is no image. {_ALLOWED}")


def given_images(images: object, parts: Parts | None = None) -> Iterator[GivenImage]:
    """Every single image of what was given, in order; nothing is opened, and nothing is read ahead.

    Args:
        images: a name as of ``named_images``; a ``Sample``; the bytes of a file; a PIL image; an array of whole
            numbers from 0 to 255, [H, W], [H, W, 3] (RGB) or [H, W, 4], or a batch of them [B, H, W, 3]; a tensor
            [3, H, W] or [1, H, W] of such numbers, or of floats from 0 to 1 (torchvision's two conventions), or a
            batch of them [B, 3, H, W]; or an iterable of any of these.
        parts: the tars and Parquet files that have been listed; None: they are remembered during this call.

    Raises:
        DataError: as ``named_images``, or for a thing of another type.
    """
    parts = parts or Parts()
    if isinstance(images, GivenImage):
        yield images
    elif isinstance(images, Sample):
        yield GivenImage.of(images)
    elif isinstance(images, (str, os.PathLike)):
        yield from (GivenImage(place, path) for path, place in named_images(os.fspath(images), parts))
    elif isinstance(images, torch.Tensor | np.ndarray) and images.ndim == 4:
        yield from (GivenImage(image) for image in images)
    elif isinstance(images, (bytes, bytearray, memoryview, Image.Image, np.ndarray, torch.Tensor)):
        yield GivenImage(images)
    elif isinstance(images, Iterable) and not isinstance(images, dict):
        for image in images:
            yield from given_images(image, parts)
    else:
        raise DataError(f"{_shown(images)} is no image. {_ALLOWED}")


_ALLOWED = (
    "An image is a path, a URL, a folder, a glob, the bytes of a file, a PIL image, an array [H, W, 3] or [H, W] of "
    "uint8, a tensor [3, H, W], or an iterable of these."
)


def _from_pil(image: Image.Image, white_level: float | None) -> Image.Image:
    """As the file that it was opened from: turned by the orientation that it still carries."""
    try:
        if isinstance(image, ImageFile.ImageFile) and image.tile:  # not decoded yet
            return decode_opened(image, white_level).image
        return as_rgb(image, white_level)
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        raise DataError(f"This PIL image cannot be read: {error} ({type(error).__name__})") from error


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
