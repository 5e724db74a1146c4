"""Proves that two pictures show the same: their points match under one transformation, and then their pixels do.

The thresholds follow from 880 copies of 22 kinds planted in photographs of flowers, and from pairs of images that are
unrelated, as they are and with one logo, caption, ruler, frame, date or watermark on both (see the slow test of
tests/audit/test_edited_copies.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ftexp.audit.local_features import Descriptors, Floats, Gray, LocalFeatures, Numbers, match

# In COARSE detail, of 840 copies of 21 kinds all but one have at least so many inliers, and of pairs of unrelated
# neighbours one in sixty has.
COARSE_INLIERS, COARSE_TOLERANCE_PIXELS, COARSE_TRIALS = 4, 1.8, 500

# In FINE detail, a match that follows an affine transformation to within so many pixels is an inlier.
TOLERANCE_PIXELS = 4.0
TRIALS = 1000
# Photographs are rarely scaled or stretched by more than this; matches that ask for more are there by chance.
LEAST_SCALE, LARGEST_SCALE, LARGEST_STRETCH = 0.2, 5.0, 1.7
# From so many inliers on, perspective is estimated, too.
INLIERS_FOR_PERSPECTIVE = 20

# Unrelated photographs have up to 11 inliers; 19 of 20 copies of each kind have more.
INLIERS_OF_EDITED, INLIERS_OF_SCENE = 12, 14
# The share of the common area whose pixels agree: at most 0.47 in unrelated pictures with one frame or watermark, and
# at most 0.6 in different hands before one wall, which have up to 11 inliers.
LEAST_AGREEMENT = 0.49
# Copies in other colours can have few inliers; nearly all of their pixels agree.
FEW_INLIERS, AGREEMENT_OF_FEW = 8, 0.7
LEAST_OVERLAP = 0.2
# The picture is divided into 6 x 6 cells, of which the outer ones can be a frame, a caption, a logo or a date.
GRID = 6
LEAST_INNER_CELLS, LEAST_INNER_LINES = 4, 2
# What is at the same place in both pictures, to within this share of their size, can be an overlay.
LEAST_MOVE = 0.02

# How the agreement is measured: pixels are blurred by so much; windows have this side, and count if their gray levels
# have this variance at least; they agree if they correlate by more than this.
BLUR_PIXELS, WINDOW, LEAST_VARIANCE, LEAST_CORRELATION = 2.0, 15, 20.0, 0.8
# The least variance by which a product is divided, so that the noise of smooth windows does not correlate.
DAMPING = 4.0

Pixels = npt.NDArray[np.uint8]
Verdict = Literal["edited", "scene"]


@dataclass(frozen=True, slots=True)
class Alignment:
    """How two pictures fit.

    Attributes:
        inliers: matches that follow the transformation.
        agreement: the share of the area that both show, and that is not smooth, in which their pixels agree.
        overlap: the share of the second picture that the first one covers.
        inner_cells: of 4 x 4 inner cells, those with inliers, in the picture with fewer of them; 0 if they are all in
            one row or column.
        moved: the largest distance by which a corner moves, as a share of the picture's size.
    """

    inliers: int
    agreement: float
    overlap: float
    inner_cells: int
    moved: float

    @property
    def verdict(self) -> Verdict | None:
        """``edited``: one picture was made of the other, or taken again with nearly the same pixels. ``scene``: another
        photograph of the same place or object.
        """
        enough = self.inliers >= INLIERS_OF_EDITED and self.agreement >= LEAST_AGREEMENT
        few = self.inliers >= FEW_INLIERS and self.agreement >= AGREEMENT_OF_FEW
        if (enough or few) and self.overlap >= LEAST_OVERLAP:
            return "edited"
        is_scene = self.inliers >= INLIERS_OF_SCENE and self.inner_cells >= LEAST_INNER_CELLS
        return "scene" if is_scene and self.moved >= LEAST_MOVE else None


NOTHING_FITS = Alignment(0, 0.0, 0.0, 0, 0.0)


def may_fit(first: LocalFeatures, second: LocalFeatures) -> bool:
    """Whether two pictures, or the mirror image of the first one, have to be aligned; from their COARSE features."""
    return any(len(_coarse_inliers(one, second)[0]) >= COARSE_INLIERS for one in (first, first.mirrored()))


def coarse_inliers(first: LocalFeatures, second: LocalFeatures) -> tuple[Descriptors, Descriptors]:
    """The descriptors, uint8 [M, 128] each, of the points by which two pictures fit, the first one mirrored or not."""
    rows, columns, seen = max(
        ((*_coarse_inliers(one, second), one) for one in (first, first.mirrored())), key=lambda found: len(found[0])
    )
    return seen.descriptors[rows], second.descriptors[columns]


def _coarse_inliers(first: LocalFeatures, second: LocalFeatures) -> tuple[Numbers, Numbers]:
    rows, columns = match(first, second)
    if len(rows) < COARSE_INLIERS:
        return rows[:0], columns[:0]
    _, inlier = cv2.estimateAffinePartial2D(
        first.points[rows],
        second.points[columns],
        method=cv2.RANSAC,
        ransacReprojThreshold=COARSE_TOLERANCE_PIXELS,
        maxIters=COARSE_TRIALS,
    )
    follows = np.zeros(len(rows), bool) if inlier is None else inlier.ravel().astype(bool)
    return rows[follows], columns[follows]


def align(first: LocalFeatures, second: LocalFeatures) -> Alignment:
    """Align the first picture, or its mirror image, with the second one; from their FINE features."""
    return _best(first, second)[0]


def laid_over(first: LocalFeatures, second: LocalFeatures, size: tuple[int, int], image: Pixels) -> Pixels | None:
    """Lay the second picture over the first one, as they fit.

    Args:
        first: the FINE features of one picture.
        second: those of the other.
        size: the width and the height of the result, in pixels: those of the first picture, or of the same shape.
        image: the second picture, uint8 [H, W, 3], of any size.

    Returns:
        uint8 [height, width, 4], transparent where the second picture shows nothing; None if they do not fit.
    """
    found, matrix, mirrored = _best(first, second)
    if found.inliers == 0:
        return None
    to_first = np.linalg.inv(matrix.astype(np.float64))
    width = first.gray.shape[1]
    if mirrored:
        to_first = np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ to_first
    enlarged = np.diag([size[0] / width, size[1] / first.gray.shape[0], 1])
    reduced = np.diag([second.gray.shape[1] / image.shape[1], second.gray.shape[0] / image.shape[0], 1])
    opaque = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return np.asarray(cv2.warpPerspective(opaque, enlarged @ to_first @ reduced, size, flags=cv2.INTER_AREA), np.uint8)


def _best(first: LocalFeatures, second: LocalFeatures) -> tuple[Alignment, Floats, bool]:
    """How two pictures fit, the transformation from the first to the second, and whether the first one is mirrored."""
    both = ((*_align(one, second), mirrored) for mirrored, one in enumerate((first, first.mirrored())))
    alignment, matrix, mirrored = max(both, key=lambda found: found[0].inliers)
    return alignment, matrix, bool(mirrored)


def _align(first: LocalFeatures, second: LocalFeatures) -> tuple[Alignment, Floats]:
    rows, columns = match(first, second)
    before, after = first.points[rows], second.points[columns]
    found = _transformation(before, after)
    if found is None:
        return NOTHING_FITS, np.eye(3, dtype=np.float32)
    matrix, inlier = found
    num_inliers = int(inlier.sum())
    if num_inliers >= INLIERS_FOR_PERSPECTIVE:
        matrix = _with_perspective(before, after, matrix, num_inliers)
    agreement, overlap = _agreement(first.gray, second.gray, matrix)
    cells = min(_inner_cells(before[inlier], first.gray.shape), _inner_cells(after[inlier], second.gray.shape))
    moved = _moved(matrix, first.gray.shape, second.gray.shape)
    return Alignment(num_inliers, agreement, overlap, cells, moved), matrix


def _transformation(before: Floats, after: Floats) -> tuple[Floats, npt.NDArray[np.bool_]] | None:
    """The affine transformation that most matches follow, [3, 3], and which those are, [M]."""
    if len(before) < FEW_INLIERS:
        return None
    matrix, inlier = cv2.estimateAffine2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE_PIXELS, maxIters=TRIALS
    )
    if matrix is None or np.linalg.det(matrix[:, :2]) <= 0:
        return None
    large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if small < LEAST_SCALE or large > LARGEST_SCALE or large / small > LARGEST_STRETCH:
        return None
    return np.vstack([matrix, [0, 0, 1]]).astype(np.float32), inlier.ravel().astype(bool)


def _with_perspective(before: Floats, after: Floats, matrix: Floats, num_inliers: int) -> Floats:
    """The homography, if it explains as many matches."""
    found, inlier = cv2.findHomography(before, after, cv2.RANSAC, TOLERANCE_PIXELS - 1, maxIters=TRIALS)
    return matrix if found is None or inlier.sum() < num_inliers else found.astype(np.float32)


def _agreement(first: Gray, second: Gray, matrix: Floats) -> tuple[float, float]:
    """The share of the common area in which the pixels agree, and the share of the second picture that is common."""
    height, width = second.shape
    warped = cv2.warpPerspective(first, matrix, (width, height), flags=cv2.INTER_AREA)
    covered = cv2.warpPerspective(np.full(first.shape, 255, np.uint8), matrix, (width, height))
    common = cv2.erode(covered, np.ones((5, 5), np.uint8)) == 255
    correlation, variance = _local_correlation(_blurred(warped), _blurred(second))
    textured = common & (variance > LEAST_VARIANCE)
    agreeing = np.abs(correlation[textured]) > LEAST_CORRELATION  # a negative one is of colours that changed places
    return float(agreeing.mean()) if len(agreeing) else 0.0, float(common.mean())


def _local_correlation(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """The correlation in the window around each pixel, and the larger of the variances there."""

    def mean(image: Floats) -> Floats:
        return np.asarray(cv2.boxFilter(image, -1, (WINDOW, WINDOW)), np.float32)

    first_mean, second_mean = mean(first), mean(second)
    one, other = mean(first * first) - first_mean**2, mean(second * second) - second_mean**2
    common = mean(first * second) - first_mean * second_mean
    correlation = common / np.sqrt(np.maximum(one, DAMPING) * np.maximum(other, DAMPING))
    return correlation, np.maximum(one, other)


def _blurred(gray: npt.NDArray[np.generic]) -> Floats:
    return np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), BLUR_PIXELS), np.float32)


def _inner_cells(points: Floats, shape: tuple[int, ...]) -> int:
    height, width = shape
    cells = np.clip((points / (width, height) * GRID).astype(int), 0, GRID - 1)
    inner = np.unique(cells[((cells > 0) & (cells < GRID - 1)).all(axis=1)], axis=0)
    lines = min(len(np.unique(inner[:, axis])) for axis in (0, 1))
    return len(inner) if lines >= LEAST_INNER_LINES else 0


def _moved(matrix: Floats, first: tuple[int, ...], second: tuple[int, ...]) -> float:
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    sizes = [np.array(shape[::-1], np.float32) for shape in (first, second)]
    landed = cv2.perspectiveTransform((corners * sizes[0])[None], matrix)[0] / sizes[1]
    return float(np.abs(landed - corners).max())
