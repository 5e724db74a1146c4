"""The preprocessing that a set of pretrained weights expects of its input images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

# The names of torchvision's ``InterpolationMode``.
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The transforms that belong to pretrained weights, as plain values.

    Attributes:
        image_size: the side of the square input of the network, in pixels.
        resize_size: the length in pixels that the image is resized to before the centre crop; ``crop_mode`` says
            which side has this length.
        interpolation: one of ``INTERPOLATIONS``, the names of torchvision's ``InterpolationMode``.
        mean, std: the normalisation of each RGB channel, for pixels scaled to 0..1.
        crop_mode: ``center`` resizes the short side, keeps the aspect ratio and crops the central square; ``squash``
            resizes both sides and ignores the aspect ratio; ``border`` resizes the long side and fills the rest of
            the square with the mean colour.
        crop_pct: ``image_size / resize_size`` if the weights state it; None if they state only the two sizes.
        white_level: the value that means white in files of more than 8 bits per channel, as the training images were
            read (``data.white_level``); None: the largest value of the file format.

    Source: the three crop modes are those of ``timm.data.create_transform``.
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
        """Return the same preprocessing for another image size; the fraction that is cropped away stays the same."""
        if image_size is None or image_size == self.image_size:
            return self
        if self.crop_pct is None:
            ratio = self.resize_size / self.image_size
            return replace(self, image_size=image_size, resize_size=round(image_size * ratio))
        return replace(self, image_size=image_size, resize_size=math.floor(image_size / self.crop_pct))

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain lists and numbers, for checkpoints and logs."""
        values = asdict(self)
        return {**values, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Make the object from the values of ``as_dict``; fields that an earlier version lacked keep their default.

        Raises:
            TypeError, ValueError: for values that do not describe a preprocessing.
        """
        if values["interpolation"] not in INTERPOLATIONS:
            raise ValueError(f"there is no interpolation {values['interpolation']!r}")
        sizes = {name: int(values[name]) for name in ("image_size", "resize_size")}
        return cls(**{**values, **sizes, "mean": tuple(values["mean"]), "std": tuple(values["std"])})
