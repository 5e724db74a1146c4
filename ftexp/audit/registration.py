"""Is one image a copy of the other? Laid over each other as well as possible, then compared in their fine detail.

Coarse shape is shared by many images of a class; fine detail survives resizing, compression, a change of brightness, a
mild crop and a flip, but is not shared by two photographs. Small and smooth images have little of it to lose, so a
match of their broader detail counts too, if it is all but perfect. All functions work on batches of pairs.

Shapes: P pairs, S pixels a side. Images are grey, float32 from 0 to 1.
Source: the alignment is Lucas and Kanade's (1981), for scale and shift, with gain and offset of brightness.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

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
# Pairs whose detail does not match at half size do not get a closer look; copies are above 0.8 there.
MIN_HALF_SIZE_LIKENESS = 0.7
STEPS_AT_HALF_SIZE = 5
STEPS_AT_FULL_SIZE = 4
# Detail is what differs from the mean of a square around, so many of 64 pixels a side: what compression destroys first,
# and what it leaves.
FINE, BROAD = 9, 33
# Strangers share more of the broad detail than of the fine (hands before one wall reach 0.92, blood cells 0.95; copies
# stay above 0.97): what is missing there weighs four times.
BROAD_WEIGHT = 4
BATCH = 512


@torch.inference_mode()
def likeness(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    """How alike the detail of two images is once one is laid over the other, 1 for copies, near 0 for strangers.

    Args:
        first_PSS, second_PSS: uint8.

    Returns:
        float32 P.
    """
    if len(first_PSS) == 0:
        return torch.zeros(0)
    batches = zip(torch.split(first_PSS, BATCH), torch.split(second_PSS, BATCH), strict=True)
    return torch.cat([_likeness_of_batch(first.float() / 255, second.float() / 255) for first, second in batches])


def _likeness_of_batch(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
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

    Pairs that are not promising keep what they scored at half size.
    """
    half = whole_PSS.shape[1] // 2
    whole_half, window_half = _resize(whole_PSS, half), _resize(window_PSS, half)
    warp_P4 = _align(whole_half, window_half, warp_P4, STEPS_AT_HALF_SIZE)
    scores_P = _correlation(_detail(_warp(whole_half, warp_P4), FINE), _detail(window_half, FINE))
    closer = scores_P >= MIN_HALF_SIZE_LIKENESS
    scores_P = scores_P.clamp(min=0)
    if closer.any():
        whole, window = whole_PSS[closer], window_PSS[closer]
        warp = _align(whole, window, warp_P4[closer], STEPS_AT_FULL_SIZE)
        scores_P[closer] = _compare(_warp(whole, warp), window)
    return scores_P


def _compare(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    """Likeness of aligned images, by their fine or by their broad detail, whichever speaks more for a copy."""
    fine_P = _correlation(_detail(first_PSS, FINE), _detail(second_PSS, FINE))
    broad_P = _correlation(_detail(first_PSS, BROAD), _detail(second_PSS, BROAD))
    return torch.maximum(fine_P, 1 - BROAD_WEIGHT * (1 - broad_P))


def _best_start(first_PSS: Tensor, second_PSS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coarse likeness, whether second is the whole, whether the window is flipped, and the start (scale, x, y)."""
    best_P = torch.full((len(first_PSS),), -torch.inf)
    choice_P = torch.zeros(len(first_PSS), dtype=torch.int64)
    tries = list(itertools.product((False, True), (False, True), STARTS))
    for number, (swap, flip, (scale, x, y)) in enumerate(tries):
        whole, window = (second_PSS, first_PSS) if swap else (first_PSS, second_PSS)
        warp_P4 = torch.tensor([scale, scale, x, y]).expand(len(whole), 4)
        score_P = _correlation(_warp(whole, warp_P4), window.flip(2) if flip else window)
        better = score_P > best_P
        best_P, choice_P = torch.where(better, score_P, best_P), choice_P.masked_fill(better, number)
    swaps, flips = torch.tensor([swap for swap, _, _ in tries]), torch.tensor([flip for _, flip, _ in tries])
    starts = torch.tensor([start for _, _, start in tries])
    return best_P, swaps[choice_P], flips[choice_P], starts[choice_P]


def _align(whole_PSS: Tensor, window_PSS: Tensor, warp_P4: Tensor, steps: int) -> Tensor:
    """Gauss-Newton on scale and shift, so that the warped whole matches gain x window + offset."""
    side = whole_PSS.shape[1]
    slope_y, slope_x = torch.gradient(whole_PSS, dim=(1, 2))
    place = (torch.arange(side) * 2 + 1) / side - 1
    window = window_PSS.flatten(1)
    for _ in range(steps):
        warped = _warp(whole_PSS, warp_P4).flatten(1)
        # Pixels per unit of the warp's coordinates: half the side.
        across, down = (_warp(slope, warp_P4) * (side / 2) for slope in (slope_x, slope_y))
        columns = (across * place, down * place[:, None], across, down)
        jacobian = torch.stack([*(c.flatten(1) for c in columns), -window, -torch.ones_like(window)], dim=2)
        normal = jacobian.transpose(1, 2) @ jacobian
        # A little damping: flat images have no slopes to go by.
        normal = normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4)
        step = torch.linalg.solve(normal, -(jacobian.transpose(1, 2) @ warped[:, :, None]))[:, :4, 0]
        warp_P4 = warp_P4 + step.clamp(-0.1, 0.1)
        warp_P4 = torch.cat([warp_P4[:, :2].clamp(0.7, 1.05), warp_P4[:, 2:].clamp(-0.3, 0.3)], dim=1)
    return warp_P4


def _warp(images_PSS: Tensor, warp_P4: Tensor) -> Tensor:
    """Sample images at (scale x + shift, scale y + shift), coordinates from -1 to 1."""
    theta = torch.zeros(len(images_PSS), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = warp_P4[:, 0], warp_P4[:, 1], warp_P4[:, 2:]
    grid = F.affine_grid(theta, [len(images_PSS), 1, *images_PSS.shape[1:]], align_corners=False)
    warped: Tensor = F.grid_sample(images_PSS[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return warped


def _detail(images_PSS: Tensor, side: int) -> Tensor:
    """What is left after taking away the mean of side x side pixels around; side is odd."""
    padded = F.pad(images_PSS[:, None], (side // 2,) * 4, mode="replicate")
    return images_PSS - F.avg_pool2d(padded, side, stride=1)[:, 0]


def _resize(images_PSS: Tensor, side: int = COARSE_SIDE) -> Tensor:
    resized: Tensor = F.interpolate(images_PSS[:, None], size=(side, side), mode="area")[:, 0]
    return resized


def _correlation(first_PSS: Tensor, second_PSS: Tensor) -> Tensor:
    first, second = first_PSS.flatten(1), second_PSS.flatten(1)
    first, second = first - first.mean(dim=1, keepdim=True), second - second.mean(dim=1, keepdim=True)
    size = first.norm(dim=1) * second.norm(dim=1)
    correlation: Tensor = (first * second).sum(dim=1) / size.clamp_min(1e-6)
    return correlation
