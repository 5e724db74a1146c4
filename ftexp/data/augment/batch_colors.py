"""Colour operations on batches, with a separate strength for each image.

All functions take images, float [B, 3, H, W] from 0 to 255, and strengths [B], and return images of the same kind.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

# Weights of red, green and blue in the brightness of a pixel (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with black; a factor of 1 changes nothing."""
    return (images * _each(factors)).clamp_(0, 255)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean brightness; a factor of 1 changes nothing."""
    mean = _luma(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, _each(factors)).clamp_(0, 255)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its gray version; a factor of 1 changes nothing."""
    return torch.lerp(_luma(images).expand_as(images), images, _each(factors)).clamp_(0, 255)


def adjust_sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with a smoothed version; a factor of 1 changes nothing.

    In the 3 x 3 kernel of the smoothing, the centre has five times the weight of each neighbour.
    """
    inner = images[..., 1:-1, 1:-1]
    smooth = (9 * avg_pool2d(images, 3, stride=1) + 4 * inner) / 13
    sharp = images.clone()  # pixels at the border lack neighbours and stay unchanged
    sharp[..., 1:-1, 1:-1] = torch.lerp(smooth, inner, _each(factors)).clamp_(0, 255)
    return sharp


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep only the upper bits of each channel; ``bits`` is from 1 to 8."""
    return images - images % 2 ** (8 - _each(bits))


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert all values that are not below a threshold, which is given as a fraction of 255."""
    return torch.where(images < 255 * _each(thresholds).double(), images, 255 - images)


def _each(strengths: Tensor) -> Tensor:
    return strengths[:, None, None, None]


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]
