"""Resizing (by matrix products) and affine maps of whole batches, with the filters of Pillow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Kernel:
    """An interpolation kernel: the weight of a pixel by its distance to a point.

    Attributes:
        radius: the distance in pixels from which the weight is 0.
        weights: maps distances to weights, element by element.
    """

    radius: int
    weights: Callable[[Tensor], Tensor]


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor, a: float = -0.5) -> Tensor:
    """The kernel of Keys (1981)."""
    x = x.abs()
    near, far = ((a + 2) * x - (a + 3)) * x**2 + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


# In Pillow, the bicubic filter of affine maps is sharper than that of resizing.
RESIZE_KERNELS = {"bilinear": Kernel(1, _bilinear), "bicubic": Kernel(2, _bicubic)}
WARP_KERNELS = {"bilinear": Kernel(1, _bilinear), "bicubic": Kernel(2, partial(_bicubic, a=-1.0))}


def resize_matrices(lengths: Tensor, longest: int, size: int, kernel: Kernel) -> Tensor:
    """Make the matrices that resize axes of several lengths to one size, with antialiasing as in Pillow.

    Args:
        lengths: the length of each axis, int [B].
        longest: the number of columns of each matrix; columns from the length of the axis on are 0.
        size: the new length.
        kernel: the interpolation kernel.

    Returns:
        float32 [B, size, longest]; each row sums to 1.
    """
    scale = (lengths / size).double()[:, None, None]
    centres = (torch.arange(size, device=lengths.device) + 0.5)[None, :, None] * scale
    columns = torch.arange(longest, device=lengths.device)[None, None, :]
    weights = kernel.weights((columns + 0.5 - centres) / scale.clamp(min=1)) * (columns < lengths[:, None, None])
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def warp(images: Tensor, matrices: Tensor, kernel: Kernel, blank: Tensor) -> Tensor:
    """Apply an affine map to every image.

    Args:
        images: float [B, 3, H, W] with values from 0 to 255.
        matrices: float [B, 2, 3], from a point of the result to a point of the image, both as (x, y) in pixels from the
            upper left corner.
        kernel: the interpolation kernel.
        blank: the colour that fills pixels from outside the image, float [3].

    Returns:
        float [B, 3, H, W].
    """
    height, width = images.shape[2:]
    down, across = (torch.arange(length, device=images.device) + 0.5 for length in (height, width))
    # Not by a matrix product, which some devices compute with reduced precision.
    x, y = (m[:, 0] * across + m[:, 1] * down[:, None] + m[:, 2] for m in matrices[..., None, None].unbind(1))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, row = (x - 0.5).floor(), (y - 0.5).floor()
    pixels, moved = images.flatten(2), torch.zeros_like(images)
    rows, columns = _taps(row, y, height, kernel), _taps(column, x, width, kernel)
    for (of_row, at_row), (of_column, at_column) in itertools.product(rows, columns):
        flat = (at_row * width + at_column).flatten(1)[:, None].expand(-1, pixels.shape[1], -1)
        moved += pixels.gather(2, flat).view_as(images) * (of_row * of_column)[:, None]
    return torch.where(inside[:, None], moved.clamp_(0, 255), blank[:, None, None])


def _taps(first: Tensor, point: Tensor, length: int, kernel: Kernel) -> list[tuple[Tensor, Tensor]]:
    """The weights and the places, inside the axis, of the pixels around points of one axis."""
    near = [first + step for step in range(1 - kernel.radius, kernel.radius + 1)]
    return [(kernel.weights(pixel + 0.5 - point), pixel.clamp(0, length - 1).long()) for pixel in near]
