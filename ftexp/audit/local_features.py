"""Local features of an image: points that are found again after turning, scaling and edits, and what is around them.

Sources: SIFT (Lowe 2004) of OpenCV; square roots of the normalised histograms, whose differences are then Hellinger
distances (Arandjelović and Zisserman 2012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image


class Detail(NamedTuple):
    """How closely an image is searched: at which longer side, in pixels, and for how many points."""

    longer_side: int
    max_points: int


# Finding the points of an image takes a tenth of the time in COARSE; FINE is for pairs that fit there.
COARSE, FINE = Detail(112, 120), Detail(320, 800)
# A quarter of OpenCV's default, because smooth and blurred pictures have points of little contrast alone.
LEAST_CONTRAST = 0.01
# A descriptor has 4 x 4 cells with a histogram of 8 directions each, relative to the direction of its point.
CELLS, DIRECTIONS = 4, 8
# Square roots of shares, from 0 to 1 and nearly all below 0.5, as bytes.
SCALE = 510

Gray = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Descriptors = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LocalFeatures:
    """The points of an image.

    Attributes:
        gray: the image, uint8 [H, W], reduced or enlarged to the longer side of its detail.
        points: x and y of each point, float32 [K, 2].
        descriptors: what is around it, uint8 [K, 128].
    """

    gray: Gray
    points: Floats
    descriptors: Descriptors

    def mirrored(self) -> LocalFeatures:
        """The features of the mirror image. It is not searched: cells change places, and directions their sign."""
        points = self.points.copy()
        points[:, 0] = self.gray.shape[1] - 1 - points[:, 0]
        return LocalFeatures(np.ascontiguousarray(self.gray[:, ::-1]), points, self.descriptors[:, _MIRRORED])


def find_local_features(image: Image.Image, detail: Detail = FINE) -> LocalFeatures:
    """Find the points of an image, RGB of any size."""
    gray = np.asarray(_resized(image, detail.longer_side).convert("L"))
    most = detail.max_points
    found, histograms = cv2.SIFT.create(most, contrastThreshold=LEAST_CONTRAST).detectAndCompute(gray, None)
    if not found:
        return LocalFeatures(gray, np.zeros((0, 2), np.float32), np.zeros((0, CELLS * CELLS * DIRECTIONS), np.uint8))
    shares = histograms / np.maximum(histograms.sum(axis=1, keepdims=True), 1e-9)
    descriptors = np.minimum(np.sqrt(shares) * SCALE, 255).round().astype(np.uint8)
    points = np.array([point.pt for point in found], np.float32)
    # Where several points tie for the last place, OpenCV keeps them all.
    return LocalFeatures(gray, points[:most], descriptors[:most])


def match(first: LocalFeatures, second: LocalFeatures) -> tuple[Numbers, Numbers]:
    """Find the points of two images that look alike, each the other's nearest and clearly nearer than the next one.

    Returns:
        Their numbers in both images, int64 [M] each.
    """
    if min(len(first.points), len(second.points)) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    likeness = products(unit_descriptors(first.descriptors), unit_descriptors(second.descriptors))
    nearest, everyone = likeness.argmax(axis=1), np.arange(len(likeness))
    mutual = likeness.argmax(axis=0)[nearest] == everyone
    best = likeness[everyone, nearest]
    likeness[everyone, nearest] = -1
    distance, next_distance = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (best, likeness.max(axis=1)))
    rows = np.nonzero(mutual & (distance < LARGEST_RATIO * next_distance))[0]
    return rows, nearest[rows]


# Lowe's ratio of the distances to the nearest and to the next descriptor.
LARGEST_RATIO = 0.8

_MIRRORED = (
    np.arange(CELLS * CELLS * DIRECTIONS)
    .reshape(CELLS, CELLS, DIRECTIONS)[::-1][:, :, -np.arange(DIRECTIONS) % DIRECTIONS]
    .reshape(-1)
)


def _resized(image: Image.Image, longer_side: int) -> Image.Image:
    scale = longer_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)


def unit_descriptors(descriptors: Descriptors) -> Floats:
    """Descriptors scaled to length 1, so that their products are their likeness, float32 [K, 128]."""
    values = descriptors.astype(np.float32)
    unit: Floats = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    return unit


def products(first: Floats, second: Floats) -> Floats:
    """The product of each pair of rows, by torch: on several threads at a time, NumPy takes ten times as long, because
    the threads of its BLAS wait for each other.
    """
    return np.asarray((torch.from_numpy(first) @ torch.from_numpy(second).T).numpy())
