"""TrivialAugment and RandAugment on batches, with torchvision's operations and strengths, drawn for each image.

torchvision's own classes draw once a call. Called for each image of a batch on a GPU, they launch kernels in proportion
to the batch, and on tensors they cannot interpolate bicubically; ``benchmarks/policies.py`` compares them.

Sources: TrivialAugment (Müller & Hutter, 2021, arXiv 2103.10158), RandAugment (Cubuk et al., 2020, arXiv 1909.13719).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftexp.data.augment.batch_colors import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    posterize,
    solarize,
)
from ftexp.data.augment.batch_resampling import WARP_KERNELS, warp
from ftexp.machine.transfer import to_device

WARPS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")

COLORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": lambda images, strengths: adjust_brightness(images, 1 + strengths),
    "Color": lambda images, strengths: adjust_saturation(images, 1 + strengths),
    "Contrast": lambda images, strengths: adjust_contrast(images, 1 + strengths),
    "Sharpness": lambda images, strengths: adjust_sharpness(images, 1 + strengths),
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": lambda images, _: functional.autocontrast(images.byte()).float(),
    "Equalize": lambda images, _: functional.equalize(images.byte()).float(),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on one image, with the name of torchvision; the unit of the strength depends on the operation."""

    name: str
    strength: float


class Policy:
    """Draws random operations for each image, and applies them to a batch.

    Args:
        name: ``trivial`` (one operation of random strength) or ``rand`` (two operations of medium strength).
        size: the side of the square images, in pixels.
        interpolation: the interpolation of operations that move pixels.
        blank: the colour that fills pixels from outside an image, float [3], on the device of the images.
    """

    def __init__(self, name: str, size: int, interpolation: str, blank: Tensor) -> None:
        policy = v2.RandAugment() if name == "rand" else v2.TrivialAugmentWide()
        self._num_operations = getattr(policy, "num_ops", 1)
        self._level: int | None = getattr(policy, "magnitude", None)
        # The private table of torchvision, so that strengths are the same here and in worker processes.
        self._space = [
            (operation, strengths if strengths is None else strengths.tolist(), signed)
            for operation, (make, signed) in policy._AUGMENTATION_SPACE.items()
            for strengths in [make(policy.num_magnitude_bins, size, size)]
        ]
        self._size = size
        self._kernel = WARP_KERNELS[interpolation]
        self._blank = blank

    def draw(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        """Draw the operations for one image, in their order."""
        return tuple(self._draw_one(rng) for _ in range(self._num_operations))

    def apply(self, images: Tensor, operations: Sequence[Sequence[Operation]]) -> Tensor:
        """Apply to every image of a batch its operations.

        Args:
            images: float [B, 3, size, size] with whole numbers from 0 to 255; they are changed in place.
            operations: the operations of each image; all images have the same number of operations.

        Returns:
            The changed images, of the same shape and kind.
        """
        for each in zip(*operations, strict=True):
            rows: defaultdict[str, list[int]] = defaultdict(list)
            for row, operation in enumerate(each):
                rows["warp" if operation.name in WARPS else operation.name].append(row)
            rows.pop("Identity", None)
            for name, chosen in rows.items():
                index = to_device(chosen, images.device)
                changed = self._change(name, images[index], [each[row] for row in chosen])
                images[index] = changed.floor_()  # whole numbers, as in Pillow
        return images

    def _draw_one(self, rng: np.random.Generator) -> Operation:
        name, strengths, signed = self._space[rng.integers(len(self._space))]
        if strengths is None:
            return Operation(name, 0.0)
        strength = strengths[rng.integers(len(strengths)) if self._level is None else self._level]
        return Operation(name, -strength if signed and rng.random() < 0.5 else strength)

    def _change(self, name: str, images: Tensor, operations: Sequence[Operation]) -> Tensor:
        if name == "warp":
            matrices = to_device([self._matrix(operation) for operation in operations], images.device)
            return warp(images, matrices, self._kernel, self._blank)
        return COLORS[name](images, to_device([operation.strength for operation in operations], images.device))

    def _matrix(self, operation: Operation) -> list[list[float]]:
        """The 2 x 3 matrix from a point of the result to its source point, in pixels from the upper left corner."""
        strength, centre = operation.strength, self._size / 2
        match operation.name:
            case "ShearX":
                return [[1.0, strength, 0.0], [0.0, 1.0, 0.0]]
            case "ShearY":
                return [[1.0, 0.0, 0.0], [strength, 1.0, 0.0]]
            case "TranslateX":
                return [[1.0, 0.0, -int(strength)], [0.0, 1.0, 0.0]]
            case "TranslateY":
                return [[1.0, 0.0, 0.0], [0.0, 1.0, -int(strength)]]
        cos, sin = math.cos(math.radians(strength)), math.sin(math.radians(strength))
        return [[cos, -sin, centre * (1 - cos + sin)], [sin, cos, centre * (1 - cos - sin)]]
