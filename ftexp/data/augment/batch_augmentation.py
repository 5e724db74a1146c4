"""Augmentation of a whole batch at once, on the device that keeps the images: crops, flips, colours, erasing.

Resizing along one axis is a product with a matrix, so two matrix products crop and resize all images of a batch, each
from its own rectangle. Random draws depend on (seed, epoch, index of the sample), with the distributions of
torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter (here always brightness, contrast, saturation, in
that order), TrivialAugmentWide or RandAugment, and RandomErasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ftexp.config import AugmentConfig
from ftexp.data.augment.batch_colors import adjust_brightness, adjust_contrast, adjust_saturation
from ftexp.data.augment.batch_policies import Operation, Policy
from ftexp.data.augment.batch_resampling import RESIZE_KERNELS, resize_matrices
from ftexp.machine.accelerator import is_accelerator, moved
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.transfer import to_device
from ftexp.preprocessing import Preprocessing

# The number of attempts to draw a rectangle that fits into the image, as in torchvision.
TRIES = 10
CROP_RATIO, ERASING_RATIO, ERASING_SCALE = (3 / 4, 4 / 3), (0.3, 3.3), (0.02, 0.33)
JITTER = (adjust_brightness, adjust_contrast, adjust_saturation)


@dataclass(frozen=True, slots=True)
class Draw:
    """The random augmentation of one image.

    Attributes:
        crop: top, left, height and width of the crop in the original image.
        mirrored: whether the image is flipped horizontally.
        factors: the factors of brightness, contrast and saturation; 1: unchanged.
        erased: top, left, height and width of the erased rectangle in the result; None: nothing is erased.
        operations: the operations of the policy, in their order.
    """

    crop: tuple[int, int, int, int]
    mirrored: bool
    factors: tuple[float, float, float]
    erased: tuple[int, int, int, int] | None
    operations: tuple[Operation, ...] = ()


class BatchAugmentation:
    """Augments a batch of training images.

    Args:
        preprocessing: what the weights expect; gives the size of the result.
        augment: which augmentations there are, and their strengths.
        seed: the seed of all random draws.
        device: the device that computes.
    """

    def __init__(self, preprocessing: Preprocessing, augment: AugmentConfig, seed: int, device: torch.device) -> None:
        self._size = preprocessing.image_size
        self._kernel = RESIZE_KERNELS[preprocessing.interpolation]
        self._blank = torch.tensor([round(255 * mean) for mean in preprocessing.mean], device=device).float()
        self._policy: Policy | None = None
        if augment.policy != "none":
            self._policy = Policy(augment.policy, self._size, preprocessing.interpolation, self._blank)
        self._augment = augment
        self._seed = seed
        self.device = device

    @staticmethod
    def supports(preprocessing: Preprocessing, device: torch.device) -> bool:
        """Whether the interpolation of the weights is supported, and the device has float64, which it computes in."""
        return preprocessing.interpolation in RESIZE_KERNELS and KINDS[device.type].float64

    def __call__(self, images: Sequence[Tensor], epoch: int, indices: Sequence[int]) -> Tensor:
        """Augment images for one epoch.

        Args:
            images: the images, each uint8 [H, W, 3].
            epoch: the number of the epoch.
            indices: the indices of the samples; random draws depend on the epoch and the index.

        Returns:
            uint8 [B, 3, size, size] on the device, channels last in memory.
        """
        if not images:
            return torch.empty(0, 3, self._size, self._size, dtype=torch.uint8, device=self.device)
        shapes = [(image.shape[0], image.shape[1]) for image in images]
        draws = [self._draw(epoch, index, *shape) for index, shape in zip(indices, shapes, strict=True)]
        batch = self._crop(images, draws)
        if self._augment.color_jitter > 0:
            factors = to_device([draw.factors for draw in draws], self.device)
            for change, factor in zip(JITTER, factors.unbind(1), strict=True):
                batch = change(batch, factor)
        if self._policy is not None:
            batch = self._policy.apply(batch.round_(), [draw.operations for draw in draws])
        for image, draw in zip(batch, draws, strict=True):
            if draw.erased is not None:
                top, left, height, width = draw.erased
                image[:, top : top + height, left : left + width] = self._blank[:, None, None]
        return batch.round_().byte().contiguous(memory_format=torch.channels_last)

    def _draw(self, epoch: int, index: int, height: int, width: int) -> Draw:
        rng, augment, size = np.random.default_rng((self._seed, epoch, index)), self._augment, self._size
        crop = (0, 0, height, width)
        if augment.crop_scale < 1:
            drawn = draw_rectangle(rng, height, width, (augment.crop_scale, 1.0), CROP_RATIO)
            crop = drawn or largest_centre(height, width, CROP_RATIO)
        mirrored = rng.random() < augment.horizontal_flip
        strength = augment.color_jitter
        brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).tolist()
        erased = None
        if rng.random() < augment.erasing:
            erased = draw_rectangle(rng, size, size, ERASING_SCALE, ERASING_RATIO)
        operations = self._policy.draw(rng) if self._policy is not None else ()
        return Draw(crop, mirrored, (brightness, contrast, saturation), erased, operations)

    def _crop(self, images: Sequence[Tensor], draws: Sequence[Draw]) -> Tensor:
        """Crop, resize and mirror the images; returns float32 [B, 3, size, size] with values from 0 to 255."""
        heights, widths = (to_device([draw.crop[axis] for draw in draws], self.device) for axis in (2, 3))
        shape = len(draws), max(draw.crop[2] for draw in draws), max(draw.crop[3] for draw in draws), 3
        pinned = images[0].device.type == "cpu" and is_accelerator(self.device)
        canvas = torch.empty(shape, dtype=torch.uint8, device=images[0].device, pin_memory=pinned)
        for number, (image, draw) in enumerate(zip(images, draws, strict=True)):
            top, left, height, width = draw.crop
            canvas[number, :height, :width] = image[top : top + height, left : left + width]
        canvas = moved(canvas, self.device)
        down = resize_matrices(heights, shape[1], self._size, self._kernel)
        across = resize_matrices(widths, shape[2], self._size, self._kernel)
        mirrored = to_device([draw.mirrored for draw in draws], self.device)
        across = torch.where(mirrored[:, None, None], across.flip(1), across)
        crops = canvas.permute(0, 3, 1, 2).float()
        return (down[:, None] @ (crops @ across[:, None].mT)).clamp_(0, 255)


def draw_rectangle(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int] | None:
    """Draw a random rectangle inside an image.

    Args:
        rng: the random number generator.
        height, width: the size of the image in pixels.
        scale: the range of the fraction of the area, drawn uniformly.
        ratio: the range of width / height, drawn log-uniformly.

    Returns:
        Top, left, height and width; None when no attempt fitted into the image.
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*scale)
        shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        tall, wide = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < tall <= height and 0 < wide <= width:
            return int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1)), tall, wide
    return None


def largest_centre(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest centred rectangle whose width / height is in a range.

    Args:
        height, width: the size of the image in pixels.
        ratio: the smallest and the largest width / height.

    Returns:
        Top, left, height and width.
    """
    shape = min(max(width / height, ratio[0]), ratio[1])
    tall, wide = min(height, round(width / shape)), min(width, round(height * shape))
    return (height - tall) // 2, (width - wide) // 2, tall, wide
