"""Is one image a copy of the other? Laid over each other as well as possible, then compared in their fine detail.

Coarse shape is shared by many images of a class; fine detail survives resizing, compression, a change of brightness, a
mild crop and a flip, but is not shared by two photographs. Small and smooth images have little of it to lose, so a
match of their broader detail counts too, if it is all but perfect. All functions work on batches of pairs.

Scaling, shifting and blurring work on rows and columns alone, so each is a product with two small matrices, which costs
a tenth of the general operation.

Shapes: P pairs, S pixels a side. Images are grey, float32 from 0 to 1.
Source: the alignment is Baker and Matthews' (2004), inverse compositional, for scale and shift, with gain and offset of
brightness.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ftexp.audit.parallel import map_batches

COARSE_SIDE = 24
# Pairs that do not look alike at 24 px after the best of the starts are not looked at any further.
MIN_COARSE_LIKENESS = 0.75
# Scale and shift, in units of half the side: the whole image, windows of 0.9 in nine places and of 0.8 in five.
STARTS = [(1.0, 0.0, 0.0)] + [
    (scale, x * (1 - scale), y * (1 - scale))
    for scale in (0.9, 0.8)
    for x, y in itertools.product((-1, 0, 1), repeat=2)
    if scale == 0.9 or x * y != 0 or x == y
]
# Pairs whose detail does not match at half size do not get a closer look; nearly all copies are above 0.8 there.
MIN_HALF_SIZE_LIKENESS = 0.6
STEPS_AT_HALF_SIZE = 4
STEPS_AT_FULL_SIZE = 2
# Detail is what differs from the mean of a square around, so many of 64 pixels a side: what compression destroys first,
# and what it leaves.
FINE, BROAD = 9, 33
# Strangers share more of the broad detail than of the fine (hands before one wall reach 0.92, blood cells 0.95; copies
# stay above 0.97): what is missing there weighs four times.
BROAD_WEIGHT = 4
BATCH = 128


def likeness(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    """How alike the detail of two images is once one is laid over the other, 1 for copies, near 0 for strangers.

    Args:
        first_PSS, second_PSS: uint8.

    Returns:
        float32 P.
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
    # From here on "window" is the image that may be a part of "whole".
    whole_PSS, window_PSS = torch.where(swap, second, first), torch.where(swap, first, second)
    window_PSS = torch.where(flip_P[promising, None, None], window_PSS.flip(2), window_PSS)
    scale, shift = start_P3[promising, :1], start_P3[promising, 1:]
    scores_P[promising] = _align_and_compare(whole_PSS, window_PSS, torch.cat([scale, scale, shift], dim=1))
    return scores_P


def _align_and_compare(whole_PSS: Tensor, window_PSS: Tensor, warp_P4: Tensor) -> Tensor:
    """Likeness in detail after alignment, first at half size, and where that is promising at full size.

    Alignment can lead astray where there is little to go by, so the best place on the way counts. Pairs that are not
    promising keep what they scored at half size.
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
    """Likeness of aligned images, by their fine or by their broad detail, whichever speaks more for a copy."""
    fine_P = _correlation(_detail(first_PSS, FINE), _detail(second_PSS, FINE))
    broad_P = _correlation(_detail(first_PSS, BROAD), _detail(second_PSS, BROAD))
    return torch.maximum(fine_P, 1 - BROAD_WEIGHT * (1 - broad_P))


def _best_start(first_PSS: Tensor, second_PSS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coarse likeness, whether second is the whole, whether the window is flipped, and the start (scale, x, y)."""
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
    """Gauss-Newton on scale and shift, so that the warped whole matches gain x window + offset."""
    side = whole_PSS.shape[1]
    place = _places(side)
    slope_y, slope_x = torch.gradient(window_PSS, dim=(1, 2))
    # Pixels per unit of the warp's coordinates: half the side.
    across, down = slope_x * (side / 2), slope_y * (side / 2)
    columns = (across * place, down * place[:, None], across, down, window_PSS, torch.ones_like(window_PSS))
    # The slopes are the window's, so all this stays the same from step to step.
    jacobian_P6D = torch.stack([column.flatten(1) for column in columns], dim=1)
    normal = jacobian_P6D @ jacobian_P6D.transpose(1, 2)
    # A little damping: flat images have no slopes to go by.
    factor = torch.linalg.cholesky(normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4))
    for _ in range(steps):
        difference = (_warp(whole_PSS, warp_P4) - window_PSS).flatten(1)[:, :, None]
        change = torch.cholesky_solve(jacobian_P6D @ difference, factor)[:, :, 0]
        gain = (1 + change[:, 4:5]).clamp(min=0.2)
        scale, shift = ((part / gain).clamp(-0.1, 0.1) for part in (change[:, :2], change[:, 2:4]))
        # The window moved that way, so the whole moves the other way.
        scales = (warp_P4[:, :2] / (1 + scale)).clamp(0.7, 1.05)
        warp_P4 = torch.cat([scales, (warp_P4[:, 2:] - scales * shift).clamp(-0.3, 0.3)], dim=1)
    return warp_P4


def _warp(images_PSS: Tensor, warp_P4: Tensor) -> Tensor:
    """Sample images at (scale x + shift, scale y + shift), coordinates from -1 to 1."""
    side = images_PSS.shape[1]
    across, down = (_sampling(warp_P4[:, axis], warp_P4[:, 2 + axis], side) for axis in (0, 1))
    return down @ images_PSS @ across.transpose(1, 2)


def _sampling(scale_P: Tensor, shift_P: Tensor, side: int) -> Tensor:
    """Matrices P x side x side that sample a line of pixels at scale x + shift; beyond the border is the border."""
    at_PS = ((scale_P[:, None] * _places(side) + shift_P[:, None] + 1) * side - 1) / 2
    distance_PSS = at_PS.clamp(0, side - 1)[:, :, None] - torch.arange(side)
    return (1 - distance_PSS.abs()).clamp(min=0)


def _places(side: int) -> Tensor:
    """Centres of the pixels of a line from -1 to 1."""
    return (torch.arange(side) * 2 + 1) / side - 1


def _detail(images_PSS: Tensor, side: int) -> Tensor:
    """What is left after taking away the mean of side x side pixels around; side is odd."""
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
    """Without their mean and of length 1, along the last dimension."""
    centred = values - values.mean(dim=-1, keepdim=True)
    unit: Tensor = centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    return unit
