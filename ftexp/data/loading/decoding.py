"""Decodes an image file to an RGB image of 8 bits, upright and without transparency."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from ftexp.data.loading.depth import FULL_SCALE_16_BITS, Depth, Peak
from ftexp.data.loading.eight_bits import raw_mode, read_16_bit_colour, to_rgb, transparent_colour
from ftexp.data.loading.formats import is_camera_raw, is_heic
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.remote import UnreadableError

# The largest text or colour profile in a PNG, in bytes. Pillow's limit, 1 MiB, refuses valid images of some editors.
MAX_TEXT_BYTES = 64 * 2**20
EXIF_ORIENTATION = 0x0112
# EXIF orientation -> the transposition that turns the image upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Formats whose pages or frames are separate images, and not sizes or parts of one image.
SEQUENCES = frozenset({"TIFF", "GIF", "WEBP", "PNG", "AVIF"})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded file.

    Attributes:
        image: the RGB image of 8 bits.
        depth: what the file contains besides this image: more bits, or more pages.
    """

    image: Image.Image
    depth: Depth


@cache
def decoders() -> str:
    """The versions of the packages that decode files, which can change the pixels; part of the key in the cache."""
    found = [f"pillow {version('pillow')}"]
    with suppress(PackageNotFoundError):  # an extra
        found.append(f"pillow-heif {version('pillow-heif')}")
    return ", ".join(found)


def open_lazily(content: bytes, name: str, limits: ImageLimits) -> ImageFile.ImageFile:
    """Open an image without decoding it; a HEIC image also, if pillow-heif is installed.

    Args:
        content: the bytes of its file.
        name: the path or the unique name of the image; some formats differ by their suffix alone.
        limits: of its width and height.

    Raises:
        UnreadableError: when it has more pixels than the limits allow.
        Exception: any exception of Pillow; UnidentifiedImageError for a format that is not an image format.
    """
    _quiet_pillow()
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT_BYTES
    # data.max_megapixels is checked for every file before it is decoded; Pillow's own limit is 179 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        if not (is_heic(content) and _can_read_heic()):
            raise
        image = Image.open(io.BytesIO(content))
    if is_camera_raw(name, image.format):
        raise UnidentifiedImageError("a raw file of a camera")  # described by ``describe_file``
    if (too_large := limits.exceeded_by_pixels(image.width, image.height)) is not None:
        raise UnreadableError(too_large)
    return image


def decode_opened(image: ImageFile.ImageFile, white_level: float | None = None) -> Decoded:
    """Decode an image that ``open_lazily`` has opened.

    Args:
        image: the opened image.
        white_level: the value that becomes white if a channel has more than 8 bits; None: 65535, or 1 for floats.

    Returns:
        An RGB image, turned upright by its EXIF orientation, with white behind transparent pixels; and its depth.

    Raises:
        Exception: any exception of Pillow; ValueError for values that cannot be converted to 8 bits.
    """
    mode, num_pages = raw_mode(image), _num_pages(image)
    if image.format == "TIFF" and mode.startswith("RGBX"):
        raise ValueError("it has a fourth channel that is not transparency; only RGB and gray images are supported")
    colour = image.mode.startswith("RGB") and ";16" in mode
    peak: Peak | None = None
    if colour and white_level is not None:
        rgb, peak = read_16_bit_colour(image, white_level)
    else:
        image.load()
        if colour:  # Pillow keeps only the upper byte of every value
            peak = Peak(max(high for _, high in _extrema(image)) * 257.0, FULL_SCALE_16_BITS)
            if (key := transparent_colour(image)) is not None:
                image.info["transparency"] = tuple(value >> 8 for value in key)
        rgb = image
    orientation = _orientation(image)
    rgb, gray_peak = to_rgb(rgb, white_level)
    return Decoded(_upright(rgb, orientation), Depth(peak or gray_peak, num_pages))


def as_rgb(image: Image.Image, white_level: float | None = None) -> Image.Image:
    """An image that Pillow has decoded already; see ``decode_opened``."""
    return _upright(to_rgb(image, white_level)[0], _orientation(image))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The smallest and the largest value of red, green and blue."""
    return cast(tuple[tuple[int, int], ...], image.getextrema())[:3]


@cache
def _quiet_pillow() -> None:
    """Ignore Pillow's warnings of damaged tags, which do not matter here and do not name the file."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _can_read_heic() -> bool:
    """Register the HEIC decoder with Pillow; returns False if the extra is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _num_pages(image: ImageFile.ImageFile) -> int:
    try:
        return int(getattr(image, "n_frames", 1)) if image.format in SEQUENCES else 1
    except Exception:  # a later page is damaged; only the first page is used
        return 1


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it cannot be read. Other damaged tags do not matter."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # on damaged bytes, Pillow raises many kinds of exceptions
        return 1
