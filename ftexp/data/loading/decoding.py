"""Decodes an image file to an RGB image of 8 bits, upright and without transparency."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from ftexp.data.loading.depth import FULL_SCALE_16_BITS, FULL_SCALE_FLOATS, Depth, Peak
from ftexp.data.loading.formats import NUM_FIRST_BYTES, is_camera_raw, is_heic

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
# The tag and the value by which a TIFF says that 0 is white.
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
# The byte order at the end of a raw mode of Pillow with 16 bits per channel -> the other order, which reads the low
# bytes.
OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}


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


def decode(file: str | BinaryIO, white_level: float | None = None) -> Image.Image:
    """Decode a file.

    Args:
        file: the path, or the opened file.
        white_level: the value that becomes white if a channel has more than 8 bits; None: 65535, or 1 for floats.

    Returns:
        An RGB image, turned upright by its EXIF orientation, with white behind transparent pixels.

    Raises:
        Exception: any exception of Pillow; ValueError for values that cannot be converted to 8 bits.
    """
    with open_lazily(file) as image:
        return decode_opened(image, white_level).image


def open_lazily(file: str | BinaryIO, name: str = "") -> ImageFile.ImageFile:
    """Open a file without decoding it; HEIC files also, if pillow-heif is installed.

    Args:
        file: the path, or the opened file.
        name: the name of an opened file.

    Raises:
        Exception: any exception of Pillow; UnidentifiedImageError for a format that is not an image format.
    """
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_TEXT_BYTES
    # data.max_megapixels is checked for every file before it is decoded; Pillow's own limit is 179 megapixels.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        if not (is_heic(_first_bytes(file)) and _can_read_heic()):
            raise
        image = Image.open(file)
    if is_camera_raw(file if isinstance(file, str) else name, image.format):
        image.close()
        raise UnidentifiedImageError("a raw file of a camera")  # described by ``describe_file``
    return image


def decode_opened(image: ImageFile.ImageFile, white_level: float | None = None) -> Decoded:
    """Decode a file that ``open_lazily`` has opened; see ``decode``."""
    raw_mode, num_pages = _raw_mode(image), _num_pages(image)
    if image.format == "TIFF" and raw_mode.startswith("RGBX"):
        raise ValueError("it has a fourth channel that is not transparency; only RGB and gray images are supported")
    colour = image.mode.startswith("RGB") and ";16" in raw_mode
    peak: Peak | None = None
    if colour and white_level is not None:
        rgb, peak = _read_16_bit_colour(image, white_level)
    else:
        image.load()
        if colour:  # Pillow keeps only the upper byte of every value
            peak = Peak(max(high for _, high in _extrema(image)) * 257.0, FULL_SCALE_16_BITS)
            if (key := _transparent_colour(image)) is not None:
                image.info["transparency"] = tuple(value >> 8 for value in key)
        rgb = image
    orientation = _orientation(image)
    rgb, gray_peak = _to_rgb(rgb, white_level)
    upright = rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    return Decoded(upright, Depth(peak or gray_peak, num_pages))


def _first_bytes(file: str | BinaryIO) -> bytes:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return opened.read(NUM_FIRST_BYTES)
    file.seek(0)
    return file.read(NUM_FIRST_BYTES)


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


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """The raw mode of Pillow's decoder for the file: ``RGB;16B`` is colour of 16 bits with the upper byte first."""
    if not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _read_16_bit_colour(image: ImageFile.ImageFile, white_level: float) -> tuple[Image.Image, Peak]:
    """Read all 16 bits of a colour image, of which Pillow decodes only one byte, and scale them to 8 bits."""
    assert image.fp is not None
    position = image.fp.tell()
    image.fp.seek(0)
    low = Image.open(io.BytesIO(image.fp.read()))
    image.fp.seek(position)
    low.tile = [tile._replace(args=_in_other_order(tile.args)) for tile in low.tile]
    low.load()
    image.load()
    bytes_of = [np.asarray(part.convert("RGB") if part.mode != "RGBA" else part)[..., :3] for part in (image, low)]
    values = bytes_of[0].astype(np.float64) * 256 + bytes_of[1]
    scaled = Image.fromarray(_to_8_bits(values, white_level))
    key = _transparent_colour(image)
    if image.mode == "RGBA":
        scaled.putalpha(image.getchannel("A"))
    elif key is not None:
        scaled.putalpha(_opaque_except((values == key).all(axis=-1)))
    return scaled, Peak(float(values.max()), white_level)


def _in_other_order(arguments: Any) -> Any:
    """The arguments with which the decoder of a tile reads the lower byte of every value."""
    if isinstance(arguments, tuple):
        return (_in_other_order(arguments[0]), *arguments[1:])
    mode, order = arguments[:-1], arguments[-1]
    if mode == "LA;16":
        raise ValueError(
            "it is gray with transparency in 16 bits, to which data.white_level cannot be applied; save it without "
            "transparency"
        )
    return mode + OTHER_ORDER[order]


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """The smallest and the largest value of red, green and blue."""
    return cast(tuple[tuple[int, int], ...], image.getextrema())[:3]


def _transparent_colour(image: Image.Image) -> tuple[int, ...] | None:
    """The colour that a PNG without an alpha channel declares transparent, with all bits of the file."""
    key = image.info.get("transparency")
    return key if isinstance(key, tuple) else None


def _opaque_except(transparent: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))


def _to_rgb(image: Image.Image, white_level: float | None) -> tuple[Image.Image, Peak | None]:
    """Convert any mode to RGB; also returns the peak of a gray image of more than 8 bits."""
    peak = None
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        full_scale = white_level or (FULL_SCALE_FLOATS if image.mode == "F" else FULL_SCALE_16_BITS)
        values = np.asarray(image, dtype=np.float64)
        levels, key = _to_8_bits(values, full_scale), image.info.get("transparency")
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow inverts only images of 8 bits
            levels = 255 - levels
        image, peak = Image.fromarray(levels), Peak(float(values.max()), full_scale)
        if isinstance(key, int):
            image.putalpha(_opaque_except(values == key))
    if image.mode == "RGB" and not image.has_transparency_data:
        return image, peak
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB"), peak


def _to_8_bits(values: npt.NDArray[np.float64], full_scale: float) -> npt.NDArray[np.uint8]:
    """Scale values from 0 to the full scale to 0 to 255."""
    if not np.isfinite(values).all():
        raise ValueError("it has pixel values that are not finite")
    low, high = float(values.min()), float(values.max())
    if low < 0:
        raise ValueError(
            f"it has pixel values from {low:g} to {high:g}, and negative values are not supported. Choose the values "
            "that become black and white (for CT images: a window), and save the file as gray with 8 bits"
        )
    if high > full_scale:
        raise ValueError(
            f"it has pixel values from {low:g} to {high:g}; allowed are 0 to {full_scale:g}. Set data.white_level to "
            "the value that means white, or convert the file to 8 bits"
        )
    return np.round(values * (255 / full_scale)).astype(np.uint8)
