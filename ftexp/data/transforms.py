"""From an RGB image to the uint8 tensor a batch is made of, and on to the floats the network sees."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ftexp.config import AugmentConfig
from ftexp.preprocessing import Preprocessing

# An RGB image -> uint8 tensor, 3 x height x width. Normalizing waits for the device: a quarter of the bytes to copy.
View = Callable[[Image.Image], Tensor]


def eval_view(preprocessing: Preprocessing) -> View:
    """Resize the short side and crop the centre, as the weights expect it."""
    view: View = v2.Compose([*_centre(preprocessing), v2.PILToTensor()])
    return view


def train_view(preprocessing: Preprocessing, augment: AugmentConfig) -> View:
    """The augmentation; with none configured, exactly ``eval_view``."""
    steps = _centre(preprocessing)
    if augment.crop_scale < 1:
        size, scale = preprocessing.image_size, (augment.crop_scale, 1.0)
        steps = [v2.RandomResizedCrop(size, scale, interpolation=_interpolation(preprocessing), antialias=True)]
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
    view: View = v2.Compose(steps)
    return view


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


def _centre(preprocessing: Preprocessing) -> list[torch.nn.Module]:
    interpolation = _interpolation(preprocessing)
    return [
        v2.Resize(preprocessing.resize_size, interpolation=interpolation, antialias=True),
        v2.CenterCrop(preprocessing.image_size),
    ]


def _interpolation(preprocessing: Preprocessing) -> v2.InterpolationMode:
    return v2.InterpolationMode(preprocessing.interpolation)
