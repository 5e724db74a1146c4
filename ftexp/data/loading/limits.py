"""The limits above which a file counts as bad."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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

    @classmethod
    def of_checkpoint(cls, content: Mapping[str, Any]) -> ImageLimits:
        """Those that a run was trained with, by its checkpoint; one of before there were any has the defaults."""
        data, usual = content["config"].get("data", {}), cls()
        return cls(
            float(data.get("max_file_mib", usual.max_file_bytes / 2**20)) * 2**20,  # JSON has no infinity: it is a text
            float(data.get("max_megapixels", usual.max_pixels / 1e6)) * 1e6,
        )

    def as_dict(self) -> dict[str, float | str]:
        """As ``from_dict`` reads it, for JSON, which has no infinity: it is a text."""
        return {name: value if math.isfinite(value) else str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, float | str]) -> ImageLimits:
        """What ``as_dict`` gave. Raises: TypeError, ValueError for anything else."""
        return cls(**{name: float(value) for name, value in content.items()})

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
