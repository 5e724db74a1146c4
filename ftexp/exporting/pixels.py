"""The transforms of evaluation as a part of the graph: decoded pixels of any size in, what the network sees out."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ftexp.errors import ConfigError
from ftexp.preprocessing import Preprocessing

# A side of an image in pixels; while the graph is traced, a symbol that is counted with as if it were a number.
Length = int
# Pillow's weights are whole multiples of this.
_STEP = 2.0**-22
_KERNELS = ("bilinear", "bicubic")


class PixelTransform(nn.Module):
    """``eval_transform`` and ``Normalizer``, for a batch of images of one size, from operators that runtimes have.

    Resizing and cropping are one product of matrices per direction: a row holds the weights with which Pillow adds up
    the pixels of one place, and rows are there only for places within the crop. As Pillow does it, the width is resized
    before the height, and both results are rounded to whole gray levels. (Pillow 13 begins with the height where that
    shrinks by more than twice as many pixels as the width. Then some gray levels differ by one or two.)

    Raises:
        ConfigError: for an interpolation other than bilinear and bicubic.
    """

    mean: Tensor
    std: Tensor
    blank: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        if preprocessing.interpolation not in _KERNELS:
            raise ConfigError(
                f"An exported file resizes by {' or '.join(_KERNELS)} interpolation, and this network's weights expect "
                f"{preprocessing.interpolation}."
            )
        self._cubic = preprocessing.interpolation == "bicubic"
        self._resize, self._crop = preprocessing.resize_size, preprocessing.image_size
        self._mode = preprocessing.crop_mode
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        # What the image leaves of the square: the mean colour with "border", black where a crop exceeds the image.
        blank = (255 * mean).round() if self._mode == "border" else torch.zeros(1, 3, 1, 1)
        for name, values in {"mean": mean, "std": std, "blank": blank}.items():
            self.register_buffer(name, values.float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Args: RGB pixels, uint8 [N, H, W, 3]. Returns: float32 [N, 3, S, S], normalised."""
        return (self.resized(image) / 255 - self.mean) / self.std

    def resized(self, image: Tensor) -> Tensor:
        """Args: RGB pixels, uint8 [N, H, W, 3]. Returns: whole gray levels, float32 [N, 3, S, S]."""
        height, width = image.shape[1], image.shape[2]
        resized_height, resized_width = self._resized_size(height, width)
        rows, has_row = self._weights(height, resized_height)
        columns, has_column = self._weights(width, resized_width)
        pixels = image.permute(0, 3, 1, 2).float()
        pixels = torch.matmul(rows, _whole(torch.matmul(pixels, columns.transpose(0, 1))))
        inside = has_row[:, None] & has_column[None, :]
        return torch.where(inside, _whole(pixels), self.blank)

    def _resized_size(self, height: Length, width: Length) -> tuple[Length, Length]:
        if self._mode == "squash":
            return self._resize, self._resize
        if self._mode == "border":
            long = _larger(height, width)
            return _rounded(height * self._resize, long), _rounded(width * self._resize, long)
        short = _smaller(height, width)
        return self._resize * height // short, self._resize * width // short

    def _weights(self, length: Length, resized: Length) -> tuple[Tensor, Tensor]:
        """The weights of pixels in one direction, float32 [S, length], and whether a place is within the image, [S].

        Source: ``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in Pillow, ``src/libImaging/Resample.c``. Distances
        are in units of the kernel, from whole numbers, which are exact in any runtime.
        """
        place = torch.arange(self._crop) + _first(resized, self._crop)
        from_pixel = (2 * torch.arange(length) + 1) * resized
        from_place = (2 * place + 1) * length
        apart = (from_pixel[None, :] - from_place[:, None]).abs()
        distance = torch.div(apart, 2 * _larger(length, resized))
        weights = _bicubic(distance) if self._cubic else (1 - distance).clamp(min=0)
        inside = (place >= 0) & (place < resized)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=_STEP)
        return torch.floor(weights / _STEP + 0.5) * _STEP, inside


def _bicubic(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as Pillow has it."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * -0.5 + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


def _whole(levels: Tensor) -> Tensor:
    return torch.floor(levels + 0.5).clamp(0, 255)


def _larger(one: Length, other: Length) -> Length:
    return cast(Length, torch.sym_max(one, other))


def _smaller(one: Length, other: Length) -> Length:
    return cast(Length, torch.sym_min(one, other))


def _first(resized: Length, crop: int) -> Length:
    """Of the crop's first place, the number in the resized image; negative where the image is smaller."""
    beyond = _larger(resized, crop) - crop
    # Halves are rounded to even numbers, as Python does.
    half = beyond // 2
    return half + (beyond % 2) * (half % 2) - _larger(0, crop - resized) // 2


def _rounded(numerator: Length, denominator: Length) -> Length:
    """A quotient rounded as Python does, at least 1; from whole numbers, which a traced graph keeps exact."""
    doubled = 2 * numerator + denominator
    quotient = doubled // (2 * denominator)
    tie = 1 - _smaller(1, doubled % (2 * denominator))
    return _larger(1, quotient - tie * (quotient % 2))
