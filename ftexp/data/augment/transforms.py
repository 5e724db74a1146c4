"""From an RGB image to the uint8 tensor a batch is made of, and on to the floats the network sees."""

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
    """How an RGB image becomes a uint8 tensor, 3 x height x width, in two steps.

    Normalizing waits for the device: a quarter of the bytes to copy.

    Attributes:
        prepare: the part that is the same every time, RGB image to RGB image; what comes out can be kept.
        prepared_as: all that ``prepare`` depends on, as a name.
        change: the rest, in which everything that is random happens.
        is_random: whether anything is.
    """

    prepare: Callable[[Image.Image], Image.Image]
    prepared_as: str
    change: Callable[[Image.Image], Tensor]
    is_random: bool

    def __call__(self, image: Image.Image) -> Tensor:
        """Both steps, one after the other."""
        return self.change(self.prepare(image))


def eval_transform(preprocessing: Preprocessing) -> ImageTransform:
    """Resize and crop the centre, as the weights expect it."""
    prepare, name = _as_expected(preprocessing)
    return ImageTransform(prepare, name, v2.PILToTensor(), is_random=False)


def train_transform(preprocessing: Preprocessing, augment: AugmentConfig) -> ImageTransform:
    """The augmentation; with none configured, exactly ``eval_transform``.

    Random crops are taken from the whole image, its short side reduced to as many pixels as leave the smallest crop
    those that the network sees; where the image is smaller than that, from the image as it is. They keep its shape up
    to the usual 3/4 to 4/3, whatever ``crop_mode`` says: so the weights were trained, whose evaluation squashes.
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
    blank = [round(255 * mean) for mean in preprocessing.mean]  # what the network sees as 0
    if augment.policy == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=_interpolation(preprocessing), fill=blank))
    elif augment.policy == "rand":
        steps.append(v2.RandAugment(interpolation=_interpolation(preprocessing), fill=blank))
    steps.append(v2.PILToTensor())
    if augment.erasing > 0:
        steps.append(v2.RandomErasing(augment.erasing, value=blank))
    return ImageTransform(prepare, name, v2.Compose(steps), augment.changes_images)


class Normalizer:
    """uint8 images -> float32 as the weights expect: ``(x / 255 - mean) / std``, on the images' device."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._mean = torch.tensor(preprocessing.mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(preprocessing.std, dtype=torch.float32).view(3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Args: uint8, batch x 3 x height x width. Returns: float32 of the same shape and memory format."""
        if self._mean.device != images.device:
            self._mean, self._std = self._mean.to(images.device), self._std.to(images.device)
        return images.float().div_(255).sub_(self._mean).div_(self._std)


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
    """Resizes the short side as torchvision does; of a strip, only the middle that a centre crop shows.

    The whole of a strip of 65,000 x 1 pixels, its short side enlarged, would take gigabytes.

    Args:
        size: of the short side afterwards, in pixels.
        crop: side of the centre crop that follows, in pixels.
    """

    # A strip is more times as long as its short side than any photograph or panorama.
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
    """Resize the long side, then fill up to the square with one colour; all in one place, as timm's border mode."""

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
    """From an image of any shape to the square that the weights expect, and a name for that."""
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
