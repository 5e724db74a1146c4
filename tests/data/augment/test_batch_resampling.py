"""Resizing and affine maps of whole batches beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftexp.data.augment.batch_resampling import RESIZE_KERNELS, WARP_KERNELS, resize_matrices, warp

SIZE = 16
BLANK = torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("length", [5, 16, 23, 40])
def test_a_resize_is_a_matrix(interpolation: str, length: int) -> None:
    line = torch.rand(1, 1, 1, length)
    mode = v2.InterpolationMode(interpolation)
    expected = functional.resize_image(line, [1, SIZE], mode, antialias=True)[0, 0, 0]
    (matrix,) = resize_matrices(torch.tensor([length]), 45, SIZE, RESIZE_KERNELS[interpolation])
    assert torch.all(matrix[:, length:] == 0)
    assert torch.allclose(matrix[:, :length] @ line[0, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_moving_by_whole_pixels_does_not_change_values(interpolation: str) -> None:
    images = torch.rand(2, 3, 4, 6) * 255
    matrices = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[1, 0, -2], [0, 1, 1]]])
    still, moved = warp(images, matrices, WARP_KERNELS[interpolation], BLANK)
    assert torch.equal(still, images[0])
    assert torch.equal(moved[:, :3, 2:], images[1, :, 1:, :4])
    assert torch.equal(moved[:, 3], BLANK[:, None].expand(3, 6))
    assert torch.equal(moved[:, :, :2], BLANK[:, None, None].expand(3, 4, 2))


def test_half_a_pixel_is_the_mean_of_two() -> None:
    images = torch.tensor([0.0, 10.0, 40.0]).expand(1, 3, 3, 3)
    matrices = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])
    (moved,) = warp(images, matrices, WARP_KERNELS["bilinear"], BLANK)
    assert torch.equal(moved[0, 0, :2], torch.tensor([5.0, 25.0]))
    assert moved[0, 0, 2] == BLANK[0], "the middle of the last pixel lies on the edge"
