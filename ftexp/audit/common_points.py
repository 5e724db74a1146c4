"""Finds points that many pictures have, such as those of a logo, ruler, frame, date or form: they are no evidence that
two pictures are copies.

A sample of the pictures decides: a point is common if several of them have it, too. Measured with a likeness of 0.88:
in each of 280 pairs of copies planted among 3,240 pictures, at least four fifths of the points remained; in pairs with
one caption, ruler, logo or date on both, which 80 of the pictures had, fewer than ten did.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ftexp.audit.geometry import COARSE_INLIERS, coarse_inliers
from ftexp.audit.local_features import Descriptors, LocalFeatures, products, unit_descriptors

# The number of pictures in the sample, the smallest sample that is used at all, and how many of its pictures have to
# have a point for it to be common.
NUM_REFERENCES, LEAST_REFERENCES = 200, 20
LEAST_WITH_THE_POINT = 3
# Another picture has the point if one of its descriptors is at least so like, and at most MARGIN less like than the two
# of the pair are to each other.
LEAST_LIKENESS, MARGIN = 0.85, 0.05


class References:
    """The sample of pictures by which common points are recognised.

    Args:
        numbers: the numbers of its pictures.
        features: their COARSE features; None for a picture that cannot be read.
    """

    def __init__(self, numbers: Sequence[int], features: Sequence[LocalFeatures | None]) -> None:
        found = [(number, one) for number, one in zip(numbers, features, strict=True) if one and len(one.points)]
        self._numbers = np.array([number for number, _ in found])
        self._descriptors = [unit_descriptors(one.descriptors) for _, one in found]
        self._size = len(numbers)

    def leave_nothing_of(self, pair: tuple[int, int], first: LocalFeatures, second: LocalFeatures) -> bool:
        """Whether two pictures have only points in common that many pictures have.

        Args:
            pair: their numbers, which do not count as references.
            first: the COARSE features of one.
            second: those of the other.
        """
        if self._size < LEAST_REFERENCES or not self._descriptors:
            return False
        return bool((~self._common(pair, *coarse_inliers(first, second))).sum() < COARSE_INLIERS)

    def _common(self, pair: tuple[int, int], first: Descriptors, second: Descriptors) -> npt.NDArray[np.bool_]:
        """Which of the matches of a pair, by their descriptors in both pictures, are of common points."""
        one, other = unit_descriptors(first), unit_descriptors(second)
        needed = np.maximum((one * other).sum(axis=1) - MARGIN, LEAST_LIKENESS)
        has_point = np.stack([products(other, reference).max(axis=1) >= needed for reference in self._descriptors])
        common: npt.NDArray[np.bool_] = has_point[~np.isin(self._numbers, pair)].sum(axis=0) >= LEAST_WITH_THE_POINT
        return common
