"""Transforms of RGB images to uint8 tensors for batches, and the normalisation of batches for the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ftexp.config import AugmentConfig
from ftexp.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class ImageTransform:
    """Converts an RGB image to a uint8 tensor [3, H, W] in two steps.

    The normalisation is done on the device, so that a quarter of the bytes is copied to it.

    Attributes:
        prepare: the deterministic step, from an RGB image to an RGB image, whose result can be cached.
        prepared_as: a text that identifies everything that ``prepare`` depends on.
        change: the second step, from an RGB image to a tensor, which includes the random augmentation.
        is_random: whether the second step is random.
    """

    prepare: Callable[[Image.Image], Image.Image]
    prepared_as: str
    change: Callable[[Image.Image], Tensor]
    is_random: bool

    def __call__(self, image: Image.Image) -> Tensor:
        """Apply both steps."""
        return self.change(self.prepare(image))


def eval_transform(preprocessing: Preprocessing) -> ImageTransform:
    """The transform for evaluation: resize and centre crop, as the weights expect."""
    prepare, name = _as_expected(preprocessing)
    return ImageTransform(prepare, name, v2.PILToTensor(), is_random=False)


def train_transform(preprocessing: Preprocessing, augment: AugmentConfig) -> ImageTransform:
    """The transform for training; without augmentation it equals ``eval_transform``.

    Random crops are taken from the whole image. Before that, large images are shrunk so far that the smallest possible
    crop still has the size of the network's input. Crops have the usual aspect ratios from 3/4 to 4/3 for every
    ``crop_mode``, because weights with ``crop_mode=squash`` were trained that way as well.

    Args:
        preprocessing: what the weights expect.
        augment: which augmentations there are, and their strengths.
    """
    prepare, name = _as_expected(preprocessing)
    steps: list[torch.nn.Module] = []
    if augment.crop_scale < 1:
        size, scale = preprocessing.image_size, (augment.crop_scale, 1.0)
        short_side = math.ceil(size / math.sqrt(augment.crop_scale))
        prepare = _Shrink(short_side, preprocessing.interpolation)
        name = f"short side at most {short_side} px, {preprocessing.interpolation}"
        steps.append(v2.RandomResizedCrop(size, scale, interpolation=_interpolation(preprocessing), antialias=True))
    if augment.horizontal_flip > 0:
        steps.append(v2.RandomHorizontalFlip(augment.horizontal_flip))
    if augment.color_jitter > 0:
        strength = augment.color_jitter
        steps.append(v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength))
    blank = [round(255 * mean) for mean in preprocessing.mean]  # becomes 0 by the normalisation
    if augment.policy == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=_interpolation(preprocessing), fill=blank))
    elif augment.policy == "rand":
        steps.append(v2.RandAugment(interpolation=_interpolation(preprocessing), fill=blank))
    steps.append(v2.PILToTensor())
    if augment.erasing > 0:
        steps.append(v2.RandomErasing(augment.erasing, value=blank))
    return ImageTransform(prepare, name, v2.Compose(steps), augment.changes_images)


class Normalizer:
    """Normalises uint8 images to float32 as the weights expect, ``(x / 255 - mean) / std``, on their device."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std, dtype=torch.float32).view(3, 1, 1)
        # As large as an image: broadcasting three values is three times slower in the channels-last format.
        self._of_image = self._mean, self._std

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise images, uint8 [B, 3, H, W] or [3, H, W], to float32 of the same shape and memory format."""
        normalised = images.float()
        shape, strides, device = normalised.shape[-3:], normalised.stride()[-3:], normalised.device
        mean, std = self._of_image
        if (mean.shape, mean.stride(), mean.device) != (shape, strides, device):
            mean, std = (
                torch.empty_strided(shape, strides, device=device).copy_(values) for values in (self._mean, self._std)
            )
            self._of_image = mean, std
        return normalised.div_(255).sub_(mean).div_(std)


class _Shrink:
    def __init__(self, short_side: int, interpolation: str) -> None:
        self._short_side = short_side
        self._resize = v2.Resize(short_side, v2.InterpolationMode(interpolation), antialias=True)

    def __call__(self, image: Image.Image) -> Image.Image:
        if min(image.size) <= self._short_side:
            return image
        smaller: Image.Image = self._resize(image)
        return smaller


class _ResizeShortSide:
    """Resizes the short side like torchvision, but of a very long image only the part that the centre crop needs.

    A whole image of 65,000 x 1 pixels would take gigabytes after its short side has been enlarged.

    Args:
        size: the length of the short side afterwards, in pixels.
        crop: the side of the centre crop that follows, in pixels.
        interpolation: the interpolation of the weights.
    """

    # The ratio of long to short side above which an image counts as very long; no photograph or panorama has it.
    LONGEST = 32

    def __init__(self, size: int, crop: int, interpolation: v2.InterpolationMode) -> None:
        self._size = size
        self._crop = crop
        self._resample = Image.Resampling[interpolation.name]
        self._resize = v2.Resize(size, interpolation, antialias=True)

    def __call__(self, image: Image.Image) -> Image.Image:
        short, long = min(image.size), max(image.size)
        resized_long = int(self._size * long / short)
        if long <= self.LONGEST * short or resized_long <= self._crop:
            resized: Image.Image = self._resize(image)
            return resized
        start = round((resized_long - self._crop) / 2)
        first, last = start * long / resized_long, (start + self._crop) * long / resized_long
        if image.width == long:
            return image.resize((self._crop, self._size), self._resample, box=(first, 0, last, short))
        return image.resize((self._size, self._crop), self._resample, box=(0, first, short, last))


class _FitInside:
    """Resizes the long side, then fills the square with one colour, like the border mode of timm."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._long_side, self._square = preprocessing.resize_size, preprocessing.image_size
        self._interpolation = _interpolation(preprocessing)
        red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
        self._blank = (red, green, blue)

    def __call__(self, image: Image.Image) -> Image.Image:
        ratio = max(image.size) / self._long_side
        width, height = (max(1, round(length / ratio)) for length in image.size)
        resized: Image.Image = v2.functional.resize(image, [height, width], self._interpolation, antialias=True)
        canvas = Image.new("RGB", (max(width, self._square), max(height, self._square)), self._blank)
        canvas.paste(resized, (max(0, self._square - width) // 2, max(0, self._square - height) // 2))
        square: Image.Image = v2.functional.center_crop(canvas, [self._square, self._square])
        return square


def _as_expected(preprocessing: Preprocessing) -> tuple[Callable[[Image.Image], Image.Image], str]:
    """The function from an image of any size to the square that the weights expect, and a text that identifies it."""
    resize, crop, kind = preprocessing.resize_size, preprocessing.image_size, preprocessing.interpolation
    if preprocessing.crop_mode == "border":
        blank = [round(255 * mean) for mean in preprocessing.mean]
        return _FitInside(preprocessing), f"long side {resize} px, centre {crop} px on {blank}, {kind}"
    if preprocessing.crop_mode == "squash":
        squash = v2.Resize([resize, resize], _interpolation(preprocessing), antialias=True)
        return v2.Compose([squash, v2.CenterCrop(crop)]), f"both sides {resize} px, centre {crop} px, {kind}"
    steps = v2.Compose([_ResizeShortSide(resize, crop, _interpolation(preprocessing)), v2.CenterCrop(crop)])
    return steps, f"short side {resize} px, centre {crop} px, {kind}"


def _interpolation(preprocessing: Preprocessing) -> v2.InterpolationMode:
    return v2.InterpolationMode(preprocessing.interpolation)
