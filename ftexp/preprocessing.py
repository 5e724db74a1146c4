"""What a set of pretrained weights expects of its input images."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The transforms that belong to weights, as plain values.

    Attributes:
        image_size: side of the square the network sees, in pixels.
        resize_size: length the short side is resized to before the centre crop, in pixels.
        interpolation: ``bilinear`` or ``bicubic``.
        mean, std: per RGB channel, for pixels scaled to 0..1.
        white_level: the value that is white in files of more than 8 bits a channel, as the training images were read
            (``data.white_level``); None: the full scale.
    """

    image_size: int
    resize_size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    white_level: float | None = None

    def at(self, image_size: int | None) -> Preprocessing:
        """The same preprocessing at another image size; the share cropped away stays the same."""
        if image_size is None or image_size == self.image_size:
            return self
        ratio = self.resize_size / self.image_size
        return replace(self, image_size=image_size, resize_size=round(image_size * ratio))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for checkpoints and logs."""
        values = asdict(self)
        return {**values, "mean": list(self.mean), "std": list(self.std)}
