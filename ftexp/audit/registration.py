"""Decides whether one image is a copy of another: aligns the two images, then compares their fine detail.

Many images of a class share their coarse shape. Fine detail is not shared by two different photographs, but survives
resizing, compression, a change of brightness, a mild crop and a flip. Small and smooth images have little fine detail,
so a nearly perfect match of their broader detail counts, too. All functions work on batches of pairs.

Scaling, shifting and blurring work on rows and columns separately, so each is a product with two small matrices, which
costs a tenth of the general operation.

Shapes: P is the number of pairs, S the side of an image in pixels; a suffix such as ``_PSS`` names the shape [P, S, S].
Images are gray, float32 from 0 to 1.
Source: the alignment is the inverse compositional one of Baker and Matthews (2004), for scale and shift, with gain and
offset of the brightness.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ftexp.audit.parallel import map_batches

COARSE_SIDE = 24
# Pairs with a lower similarity at 24 px, after the best of the starts, are not compared any further.
MIN_COARSE_LIKENESS = 0.75
# Scale and shift, in units of half the side: the whole image, windows of 0.9 at nine positions and of 0.8 at five.
STARTS = [(1.0, 0.0, 0.0)] + [
    (scale, x * (1 - scale), y * (1 - scale))
    for scale in (0.9, 0.8)
    for x, y in itertools.product((-1, 0, 1), repeat=2)
    if scale == 0.9 or x * y != 0 or x == y
]
# Pairs with a lower similarity at half size are not compared at full size; nearly all copies are above 0.8 there.
MIN_HALF_SIZE_LIKENESS = 0.6
STEPS_AT_HALF_SIZE = 4
STEPS_AT_FULL_SIZE = 2
# Detail is the difference from the mean of a surrounding square; these are the sides of the square, for images of 64
# pixels. Compression destroys fine detail first, and leaves broad detail.
FINE, BROAD = 9, 33
# Different images share more broad than fine detail (hands before one wall reach 0.92, blood cells 0.95; copies stay
# above 0.97), so what is missing from 1 counts four times.
BROAD_WEIGHT = 4
BATCH = 128


def likeness(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    """The similarity of the detail of two images after their alignment: 1 for copies, near 0 for different images.

    Args:
        first_PSS, second_PSS: gray images, uint8 [P, S, S].

    Returns:
        float32 [P].
    """
    if len(first_PSS) == 0:
        return torch.zeros(0)
    return torch.cat(map_batches(_likeness_of_batch, torch.split(first_PSS, BATCH), torch.split(second_PSS, BATCH)))


@torch.inference_mode()
def _likeness_of_batch(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    first_PSS, second_PSS = first_PSS.float() / 255, second_PSS.float() / 255
    coarse_P, swap_P, flip_P, start_P3 = _best_start(_resize(first_PSS), _resize(second_PSS))
    scores_P = torch.zeros(len(first_PSS))
    promising = coarse_P >= MIN_COARSE_LIKENESS
    if not promising.any():
        return scores_P
    first, second, swap = first_PSS[promising], second_PSS[promising], swap_P[promising, None, None]
    # From here on "window" is the image that can be a part of "whole".
    whole_PSS, window_PSS = torch.where(swap, second, first), torch.where(swap, first, second)
    window_PSS = torch.where(flip_P[promising, None, None], window_PSS.flip(2), window_PSS)
    scale, shift = start_P3[promising, :1], start_P3[promising, 1:]
    scores_P[promising] = _align_and_compare(whole_PSS, window_PSS, torch.cat([scale, scale, shift], dim=1))
    return scores_P


def _align_and_compare(whole_PSS: Tensor, window_PSS: Tensor, warp_P4: Tensor) -> Tensor:
    """The similarity of the detail after alignment, first at half size and, if that is high, at full size.

    Alignment can go wrong in images with little detail, so the best position on the way counts. Pairs with a low
    similarity at half size keep that score.
    """
    half = whole_PSS.shape[1] // 2
    whole_half, window_half = _resize(whole_PSS, half), _resize(window_PSS, half)
    aligned_P4 = _align(whole_half, window_half, warp_P4, STEPS_AT_HALF_SIZE)
    before_P, after_P = (
        _correlation(_detail(_warp(whole_half, warp), FINE), _detail(window_half, FINE))
        for warp in (warp_P4, aligned_P4)
    )
    warp_P4 = torch.where((after_P >= before_P)[:, None], aligned_P4, warp_P4)
    scores_P = torch.maximum(before_P, after_P).clamp(min=0)
    closer = scores_P >= MIN_HALF_SIZE_LIKENESS
    if closer.any():
        whole, window, warp = whole_PSS[closer], window_PSS[closer], warp_P4[closer]
        aligned = _align(whole, window, warp, STEPS_AT_FULL_SIZE)
        scores_P[closer] = torch.maximum(*(_compare(_warp(whole, one), window) for one in (warp, aligned)))
    return scores_P


def _compare(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    """The similarity of aligned images, by their fine or their broad detail, whichever is higher."""
    fine_P = _correlation(_detail(first_PSS, FINE), _detail(second_PSS, FINE))
    broad_P = _correlation(_detail(first_PSS, BROAD), _detail(second_PSS, BROAD))
    return torch.maximum(fine_P, 1 - BROAD_WEIGHT * (1 - broad_P))


def _best_start(first_PSS: Tensor, second_PSS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The coarse similarity, whether the second image is the whole, whether the window is flipped, and the start."""
    starts_W3 = torch.tensor(STARTS)
    side = first_PSS.shape[1]
    down_WSS = _sampling(starts_W3[:, 0], starts_W3[:, 2], side)
    across_WSS = _sampling(starts_W3[:, 0], starts_W3[:, 1], side).transpose(1, 2)
    windows = [_unit((down_WSS @ image[:, None] @ across_WSS).flatten(2)) for image in (first_PSS, second_PSS)]
    mirrored = [_unit(image.flip(2).flatten(1)) for image in (first_PSS, second_PSS)]
    scores = []
    for whole, part in ((0, 1), (1, 0)):  # STARTS[0] is all of an image
        parts_PFD = torch.stack([windows[part][:, 0], mirrored[part]], dim=1)
        scores.append(parts_PFD @ windows[whole].transpose(1, 2))
    best_P, choice_P = torch.stack(scores, dim=1).flatten(1).max(dim=1)
    number_P = choice_P // len(STARTS)
    return best_P, number_P >= 2, number_P % 2 == 1, starts_W3[choice_P % len(STARTS)]


def _align(whole_PSS: Tensor, window_PSS: Tensor, warp_P4: Tensor, steps: int) -> Tensor:
    """Gauss-Newton steps on scale and shift, until the warped whole matches gain * window + offset."""
    side = whole_PSS.shape[1]
    centres = _centres(side)
    slope_y, slope_x = torch.gradient(window_PSS, dim=(1, 2))
    # Pixels per unit of the warp's coordinates: half the side.
    across, down = slope_x * (side / 2), slope_y * (side / 2)
    columns = (across * centres, down * centres[:, None], across, down, window_PSS, torch.ones_like(window_PSS))
    # The slopes are those of the window, so the matrix is the same in all steps.
    jacobian_P6D = torch.stack([column.flatten(1) for column in columns], dim=1)
    normal = jacobian_P6D @ jacobian_P6D.transpose(1, 2)
    # A little damping, because flat images have no slopes.
    factor = torch.linalg.cholesky(normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4))
    for _ in range(steps):
        difference = (_warp(whole_PSS, warp_P4) - window_PSS).flatten(1)[:, :, None]
        change = torch.cholesky_solve(jacobian_P6D @ difference, factor)[:, :, 0]
        gain = (1 + change[:, 4:5]).clamp(min=0.2)
        scale, shift = ((part / gain).clamp(-0.1, 0.1) for part in (change[:, :2], change[:, 2:4]))
        # The change is that of the window, so the whole changes in the opposite direction.
        scales = (warp_P4[:, :2] / (1 + scale)).clamp(0.7, 1.05)
        warp_P4 = torch.cat([scales, (warp_P4[:, 2:] - scales * shift).clamp(-0.3, 0.3)], dim=1)
    return warp_P4


def _warp(images_PSS: Tensor, warp_P4: Tensor) -> Tensor:
    """Sample images at (scale * x + shift, scale * y + shift), with coordinates from -1 to 1."""
    side = images_PSS.shape[1]
    across, down = (_sampling(warp_P4[:, axis], warp_P4[:, 2 + axis], side) for axis in (0, 1))
    return down @ images_PSS @ across.transpose(1, 2)


def _sampling(scale_P: Tensor, shift_P: Tensor, side: int) -> Tensor:
    """Matrices [P, S, S] that sample a line of pixels at scale * x + shift; outside, the border is repeated."""
    at_PS = ((scale_P[:, None] * _centres(side) + shift_P[:, None] + 1) * side - 1) / 2
    distance_PSS = at_PS.clamp(0, side - 1)[:, :, None] - torch.arange(side)
    return (1 - distance_PSS.abs()).clamp(min=0)


def _centres(side: int) -> Tensor:
    """The centres of the pixels of a line from -1 to 1."""
    return (torch.arange(side) * 2 + 1) / side - 1


def _detail(images_PSS: Tensor, side: int) -> Tensor:
    """Subtract from each pixel the mean of the square of ``side`` pixels around it; ``side`` is odd."""
    pixels = torch.arange(images_PSS.shape[1])
    mean_SS = torch.zeros(len(pixels), len(pixels))
    for distance in range(-(side // 2), side // 2 + 1):
        mean_SS[pixels, (pixels + distance).clamp(0, len(pixels) - 1)] += 1 / side
    return images_PSS - mean_SS @ images_PSS @ mean_SS.T


def _resize(images_PSS: Tensor, side: int = COARSE_SIDE) -> Tensor:
    resized: Tensor = F.interpolate(images_PSS[:, None], size=(side, side), mode="area")[:, 0]
    return resized


def _correlation(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    return (_unit(first_PSS.flatten(1)) * _unit(second_PSS.flatten(1))).sum(dim=1)


def _unit(values: Tensor) -> Tensor:
    """Subtract the mean and scale to length 1, along the last dimension."""
    centred = values - values.mean(dim=-1, keepdim=True)
    unit: Tensor = centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    return unit
