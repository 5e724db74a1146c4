"""Opens the image of a sample, and says why one cannot be opened."""

from __future__ import annotations

from PIL import Image, UnidentifiedImageError

from ftexp.data.loading.decoding import decode_opened, open_lazily
from ftexp.data.loading.formats import describe_file
from ftexp.data.loading.limits import NO_LIMITS, ImageLimits
from ftexp.data.places import Place
from ftexp.data.remote import UnreadableError, reason_of
from ftexp.data.samples import Sample
from ftexp.errors import DataError

# Pillow's errors for a damaged WebP and for a drawing in PostScript, which do not say what the file is.
WITHOUT_A_NAME = ("could not create decoder object", "Unable to locate Ghostscript")


def open_image(sample: Sample, at_least: int | None = None) -> Image.Image:
    """Decode the image of a sample, which has been checked already; see ``open_place``."""
    if sample.pixels is not None:
        return Image.fromarray(sample.pixels)
    return open_place(sample.origin, sample.path, sample.white_level, NO_LIMITS, at_least)


def open_place(
    place: Place, name: str, white_level: float | None, limits: ImageLimits, at_least: int | None = None
) -> Image.Image:
    """Read and decode an image.

    Args:
        place: where its bytes are.
        name: its path or its unique name, for messages.
        white_level: see ``decode_opened``.
        limits: above which it is not read or not decoded.
        at_least: the side in pixels that is needed: a larger JPEG can be decoded at a fraction of its size, which is
            several times as fast; None: all pixels are needed.

    Returns:
        An RGB image of 8 bits, turned upright by its EXIF orientation, with white behind transparent pixels.

    Raises:
        DataError: when it cannot be read, is above a limit, is not an image, or is truncated.
    """
    content = None
    try:
        content = limits.read(place)
        with open_lazily(content, name, limits) as image:
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            return decode_opened(image, white_level).image
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        raise DataError(f"{name}: {why_unreadable(error, name, content)}") from error


def why_unreadable(error: Exception, path: str, content: bytes | None) -> str:
    """Explain an error of Pillow or of the system in a few words.

    Args:
        error: what was raised.
        path: the path of the image, or its unique name.
        content: the bytes of the image; None if they could not be read.
    """
    if isinstance(error, (FileNotFoundError, PermissionError, UnreadableError)):
        return reason_of(error)
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a file"
    if content is not None and (isinstance(error, UnidentifiedImageError) or str(error).startswith(WITHOUT_A_NAME)):
        return describe_file(path, content)
    return f"{error} ({type(error).__name__})"
