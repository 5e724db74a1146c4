"""What a set of pretrained weights expects of its input images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

# The names of torchvision's ``InterpolationMode``.
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The transforms that belong to weights, as plain values.

    Attributes:
        image_size: side of the square the network sees, in pixels.
        resize_size: length that the image is resized to before the centre crop, in pixels; of which side says
            ``crop_mode``.
        interpolation: a name of torchvision's ``InterpolationMode``: ``bilinear`` or ``bicubic``.
        mean, std: per RGB channel, for pixels scaled to 0..1.
        crop_mode: ``center``: the short side is resized and the shape kept, so that the crop loses what is beyond the
            square; ``squash``: both sides are resized, whatever the image's shape; ``border``: the long side is
            resized, and what the image leaves of the square is filled with the mean colour.
        crop_pct: ``image_size / resize_size`` as the weights state it; None: they state the two sizes alone.
        white_level: the value that is white in files of more than 8 bits a channel, as the training images were read
            (``data.white_level``); None: the full scale.

    Source: the three modes are those of ``timm.data.create_transform``.
    """

    image_size: int
    resize_size: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_mode: Literal["center", "squash", "border"] = "center"
    crop_pct: float | None = None
    white_level: float | None = None

    def at(self, image_size: int | None) -> Preprocessing:
        """The same preprocessing at another image size; the share cropped away stays the same."""
        if image_size is None or image_size == self.image_size:
            return self
        if self.crop_pct is None:
            ratio = self.resize_size / self.image_size
            return replace(self, image_size=image_size, resize_size=round(image_size * ratio))
        return replace(self, image_size=image_size, resize_size=math.floor(image_size / self.crop_pct))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for checkpoints and logs."""
        values = asdict(self)
        return {**values, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From what ``as_dict`` gave; fields that an earlier version did not have keep their default.

        Raises:
            TypeError, ValueError: for values that are no preprocessing.
        """
        if values["interpolation"] not in INTERPOLATIONS:
            raise ValueError(f"there is no interpolation {values['interpolation']!r}")
        sizes = {name: int(values[name]) for name in ("image_size", "resize_size")}
        return cls(**{**values, **sizes, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
