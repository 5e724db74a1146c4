"""Converts the pixels of a file, of any mode and depth, to RGB of 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from ftexp.data.loading.depth import FULL_SCALE_16_BITS, FULL_SCALE_FLOATS, Peak

# The tag and the value by which a TIFF says that 0 is white.
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
# The byte order at the end of a raw mode of Pillow with 16 bits per channel -> the other order, which reads the low
# bytes.
OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}


def raw_mode(image: ImageFile.ImageFile) -> str:
    """The raw mode of Pillow's decoder for the file: ``RGB;16B`` is colour of 16 bits with the upper byte first."""
    if not image.tile:
        return ""
    arguments: Any = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def transparent_colour(image: Image.Image) -> tuple[int, ...] | None:
    """The colour that a PNG without an alpha channel declares transparent, with all bits of the file."""
    key = image.info.get("transparency")
    return key if isinstance(key, tuple) else None


def read_16_bit_colour(image: ImageFile.ImageFile, white_level: float) -> tuple[Image.Image, Peak]:
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
    key = transparent_colour(image)
    if image.mode == "RGBA":
        scaled.putalpha(image.getchannel("A"))
    elif key is not None:
        scaled.putalpha(_opaque_except((values == key).all(axis=-1)))
    return scaled, Peak(float(values.max()), white_level)


def to_rgb(image: Image.Image, white_level: float | None) -> tuple[Image.Image, Peak | None]:
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


def _opaque_except(transparent: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))


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
