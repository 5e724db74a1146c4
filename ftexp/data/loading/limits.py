"""The limits above which a file counts as bad."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftexp.config import DataConfig
from ftexp.data.places import Place
from ftexp.data.remote import UnreadableError


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits above which a file counts as bad, because decoding it can use up the memory.

    Attributes:
        max_file_bytes: the largest size of a file, in bytes; infinity: there is no limit.
        max_pixels: the largest product of width and height; likewise.
    """

    max_file_bytes: float = 64 * 2**20
    max_pixels: float = 89_000_000

    @classmethod
    def of(cls, config: DataConfig) -> ImageLimits:
        """The limits of ``data.max_file_mib`` and ``data.max_megapixels``."""
        return cls(config.max_file_mib * 2**20, config.max_megapixels * 1e6)

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

    def exceeded_by_file(self, num_bytes: int) -> str | None:
        """The reason why a file of this size is bad; None if it is not."""
        if num_bytes <= self.max_file_bytes:
            return None
        return f"{num_bytes / 2**20:.1f} MiB, above data.max_file_mib={self.max_file_bytes / 2**20:g}"

    def exceeded_by_pixels(self, width: int, height: int) -> str | None:
        """The reason why an image of this size is bad; None if it is not."""
        if width * height <= self.max_pixels:
            return None
        return f"{width * height / 1e6:.1f} megapixels, above data.max_megapixels={self.max_pixels / 1e6:g}"


# Of images that have been checked already.
NO_LIMITS = ImageLimits(math.inf, math.inf)
