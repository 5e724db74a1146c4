"""Decodes an image once for the audit, and keeps what its fingerprint is made of."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftexp.data.digests import ContentDigests, bytes_digest, pixel_digest
from ftexp.data.loading.decoding import decode_opened, open_lazily
from ftexp.data.loading.depth import Depth
from ftexp.data.loading.images import why_unreadable
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.samples import Sample

# The side of the RGB thumbnail for the feature extractor, and of the gray one for comparing pairs, in pixels.
THUMBNAIL_SIZE = 64
# The part of an image, per side, that captions, frames and the bars of a screenshot leave free.
CENTRE = 0.65
# EXIF tags that can differ between classes for reasons that have nothing to do with the content of the image.
EXIF_FIELDS = {0x010F: "exif_make", 0x0110: "exif_model", 0x0131: "exif_software", 0x0112: "exif_orientation"}


@dataclass(frozen=True, slots=True)
class Bad:
    """Why an image is bad."""

    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """The result of decoding an image; the thumbnails of the whole and of its centre are RGB."""

    content: str
    pixels: str
    facts: dict[str, str | float]
    thumbnail: npt.NDArray[np.uint8]
    centre: npt.NDArray[np.uint8]


def content_digest(sample: Sample, limits: ImageLimits, digests: ContentDigests) -> str | Bad:
    """The digest of the file, or of the pixels if there is no file."""
    if sample.pixels is not None:
        return pixel_digest(sample.pixels)
    try:
        too_large = limits.exceeded_by_file(sample.origin.num_bytes() or 0)
        return Bad(too_large) if too_large else digests.of_place(sample.path, sample.origin)
    except OSError as error:
        return Bad(why_unreadable(error, sample.path, None))


def look_at(sample: Sample, limits: ImageLimits) -> Look | Bad:
    """Decode an image once, and compute the parts of its fingerprint."""
    facts: dict[str, str | float] = {}
    encoded = None
    try:
        if sample.pixels is not None:
            content, image = "", Image.fromarray(sample.pixels)
        else:
            encoded = limits.read(sample.origin)
            content = bytes_digest(encoded)
            with open_lazily(encoded, sample.path, limits) as file:
                facts = {"bytes": len(encoded), "format": str(file.format), "mode": file.mode}
                decoded = decode_opened(file, sample.white_level)
                image = decoded.image
                # After the pixels, because a PNG can have its tags at the end, and reading them earlier would decode
                # the image twice.
                facts |= _exif_facts(file) | _depth_facts(decoded.depth)
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        return Bad(why_unreadable(error, sample.path, encoded))
    facts |= {"width": image.width, "height": image.height}
    pixels = pixel_digest(np.asarray(image))
    return Look(content or pixels, pixels, facts, _thumbnail(image, 1.0), _thumbnail(image, CENTRE))


def _thumbnail(image: Image.Image, part: float) -> npt.NDArray[np.uint8]:
    """A thumbnail of the middle part of an image; its aspect ratio is not kept, because copies have the same one."""
    size, margin = (THUMBNAIL_SIZE, THUMBNAIL_SIZE), (1 - part) / 2
    box = (margin * image.width, margin * image.height, (1 - margin) * image.width, (1 - margin) * image.height)
    # A large image is first reduced by a whole factor.
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=3.0))


def _exif_facts(file: Image.Image) -> dict[str, str | float]:
    facts: dict[str, str | float] = {}
    try:
        exif = file.getexif()
    except Exception:  # the tags are damaged, but the image is not
        return facts
    for tag, name in EXIF_FIELDS.items():
        with contextlib.suppress(Exception):  # one tag is damaged, but others are not
            if tag in exif:
                facts[name] = str(exif[tag])
    return facts


def _depth_facts(depth: Depth) -> dict[str, str | float]:
    facts: dict[str, str | float] = {} if depth.num_pages == 1 else {"pages": depth.num_pages}
    return facts if depth.peak is None else facts | {"peak": depth.peak.largest, "full_scale": depth.peak.full_scale}
