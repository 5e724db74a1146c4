"""Opens the image of a sample, and checks that every file can be decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from ftexp.config import DataConfig
from ftexp.data.loading.decoding import decode
from ftexp.data.loading.formats import describe_file
from ftexp.data.places import Place
from ftexp.data.remote import UnreadableError, reason_of
from ftexp.data.samples import Sample
from ftexp.errors import DataError

# Pillow's errors for a damaged WebP and for a drawing in PostScript, which do not say what the file is.
WITHOUT_A_NAME = ("could not create decoder object", "Unable to locate Ghostscript")


def open_image(sample: Sample, at_least: int | None = None) -> Image.Image:
    """Decode the image of a sample.

    Args:
        sample: names the file, or has the pixels.
        at_least: the side in pixels that is needed: a larger JPEG can be decoded at a fraction of its size, which is
            several times as fast; None: all pixels are needed.

    Returns:
        An RGB image of 8 bits, turned upright by its EXIF orientation, with white behind transparent pixels.

    Raises:
        DataError: when the file is missing, is not an image, or is truncated.
    """
    if sample.pixels is not None:
        return Image.fromarray(sample.pixels)
    content = None
    try:
        content = None if sample.place is None else sample.place.read()
        file = sample.path if content is None else io.BytesIO(content)
        return decode(file, sample.white_level, at_least, sample.path)
    except Exception as error:  # on damaged bytes, Pillow raises many kinds of exceptions
        raise DataError(f"{sample.path}: {why_unreadable(error, sample.path, content)}") from error


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits above which a file counts as bad, because decoding it can use up the memory.

    Attributes:
        max_file_bytes: the largest size of a file, in bytes.
        max_pixels: the largest product of width and height.
    """

    max_file_bytes: int = 64 * 2**20
    max_pixels: int = 89_000_000

    @classmethod
    def of(cls, config: DataConfig) -> ImageLimits:
        """The limits of ``data.max_file_mib`` and ``data.max_megapixels``."""
        return cls(int(config.max_file_mib * 2**20), int(config.max_megapixels * 1e6))

    def exceeded_by_file(self, num_bytes: int) -> str | None:
        """The reason why a file of this size is bad; None if it is not."""
        if num_bytes <= self.max_file_bytes:
            return None
        return f"{num_bytes / 2**20:.1f} MiB, above data.max_file_mib={self.max_file_bytes / 2**20:g}"

    def read(self, place: Place) -> bytes:
        """The bytes in a place, unless they are too many; most places know their number before they are read.

        Raises:
            OSError: when they are too many or cannot be read; ``why_unreadable`` explains it.
        """
        num_bytes = place.num_bytes()
        content = place.read() if num_bytes is None or self.exceeded_by_file(num_bytes) is None else b""
        too_large = self.exceeded_by_file(num_bytes or len(content))
        if too_large is not None:
            raise UnreadableError(too_large)
        return content

    def exceeded_by_pixels(self, width: int, height: int) -> str | None:
        """The reason why an image of this size is bad; None if it is not."""
        if width * height <= self.max_pixels:
            return None
        return f"{width * height / 1e6:.1f} megapixels, above data.max_megapixels={self.max_pixels / 1e6:g}"


def why_unreadable(error: Exception, path: str, content: bytes | None = None) -> str:
    """Explain an error of Pillow or of the system in a few words.

    Args:
        error: what was raised.
        path: the file, or the name of an image in another place.
        content: the bytes of the image, if it is in another place and they could be read.
    """
    if isinstance(error, (FileNotFoundError, PermissionError, UnreadableError)):
        return reason_of(error)
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a file"
    if isinstance(error, UnidentifiedImageError) or str(error).startswith(WITHOUT_A_NAME):
        return describe_file(path, content)
    return f"{error} ({type(error).__name__})"
