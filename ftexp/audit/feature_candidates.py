"""Finds pairs of images that can be copies, or show one scene, by the features of a pretrained network.

Features of the whole image change with a caption, a frame, the bars of a screenshot and other colours. So, for edited
copies, the whole image and its centre are compared with the whole and the centre of the other image, and both in gray:
of 40 copies of each of 21 kinds planted in 2,000 photographs of flowers, at least 38 had the original among their five
nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.neighbours import MAX_COMPARED_WITH_ALL, Found, Neighbours
from ftexp.audit.pairs import Numbers, Wanted, unique_pairs
from ftexp.audit.progress import Progress

# The number of neighbours per image that can be near duplicates, and their least similarity: of 3,600 copies planted in
# three datasets, 1 % had a lower one.
NUM_NEAR, LEAST_OF_NEAR = 2, 0.6
# Those for edited copies; one of these in a hundred is less alike.
NUM_EDITED, LEAST_OF_EDITED = 5, 0.5
WHOLE, CENTRE, GRAY = 0, 1, 2
# Of many images, this number of principal components is compared. They are those of a sample of this size.
NUM_COMPONENTS = 64
MAX_SAMPLE = 16_384
# The number of images that are searched at a time.
SEARCHED_AT_ONCE = 16_384


class FeatureCandidates:
    """The features of images.

    Args:
        prints: the fingerprints of all images.
        numbers: which of them to compare, int64 [N]; they have features.
    """

    def __init__(self, prints: Fingerprints, numbers: Numbers) -> None:
        self._prints, self._numbers = prints, numbers
        self._sample = numbers[:: -(-len(numbers) // MAX_SAMPLE)]

    def near(self, wanted: Sequence[Wanted], queries: Numbers | None = None) -> list[Numbers]:
        """Find pairs of images that can be near duplicates.

        Args:
            wanted: which pairs to search; each of them is searched for by itself.
            queries: one image of each pair is among these, int64 [Q]; None: all.

        Returns:
            For each of ``wanted``, pairs (i, j) with i < j, int64 [P, 2].
        """
        return [unique_pairs(one.pairs) for one in self._search((WHOLE,), wanted, queries, NUM_NEAR, LEAST_OF_NEAR)]

    def edited(self, wanted: Wanted, queries: Numbers) -> Numbers:
        """Find pairs that can be edited copies or show one scene: for each query, its nearest; pairs as ``near``."""
        parts = [
            part
            for views in ((WHOLE, CENTRE), (GRAY,))
            for part in self._search(views, [wanted], queries, NUM_EDITED, LEAST_OF_EDITED)
        ]
        return unique_pairs(Found.joined(parts).nearest(0, NUM_EDITED).pairs)

    def _search(
        self,
        views: Sequence[int],
        wanted: Sequence[Wanted],
        queries: Numbers | None,
        number: int,
        least: float,
    ) -> list[Found]:
        """The nearest of each image, by the best of these views of both."""
        queries = self._numbers if queries is None else np.intersect1d(queries, self._numbers)
        spaces = {view: self._space(view) for view in views}
        parts = (self._vectors(self._numbers, spaces[view], view) for view in views)
        keys = torch.cat([vectors.half() for of_view in parts for _, vectors in of_view])
        neighbours = Neighbours(keys, np.tile(self._numbers, len(views)))
        del keys
        progress = Progress("compared the features of", "images", len(queries) * len(views))
        found: list[list[Found]] = [[] for _ in wanted]
        done = 0
        for view in views:
            for owners, vectors in self._vectors(queries, spaces[view], view):
                for known, one in zip(found, neighbours.search(vectors, owners, wanted, number, least), strict=True):
                    known.append(one.nearest(0, number))
                progress.at(done := done + len(owners))
        return [Found.joined(known).nearest(0, number) for known in found]

    def _vectors(self, numbers: Numbers, space: _Space, view: int) -> Iterator[tuple[Numbers, Tensor]]:
        for start in range(0, len(numbers), SEARCHED_AT_ONCE):
            chunk = numbers[start : start + SEARCHED_AT_ONCE]
            yield chunk, space(self._prints.features(chunk)[:, view])

    def _space(self, view: int) -> _Space:
        features = self._prints.features(self._sample)[:, view].astype(np.float32)
        return _Space(features, NUM_COMPONENTS if len(self._numbers) > MAX_COMPARED_WITH_ALL else None)


class _Space:
    """Subtracts the mean of features, and takes their first principal components where a number is given."""

    def __init__(self, features: npt.NDArray[np.float32], components: int | None) -> None:
        self._mean = torch.from_numpy(features.mean(axis=0))
        self._axes: Tensor | None = None
        if components is not None and components < features.shape[1]:
            centred = torch.from_numpy(features) - self._mean
            self._axes = torch.linalg.eigh(centred.T @ centred)[1][:, -components:]

    def __call__(self, features: npt.NDArray[np.float16]) -> Tensor:
        """Of length 1, float32 [N, D]."""
        centred = torch.from_numpy(features.astype(np.float32)) - self._mean
        return torch.nn.functional.normalize(centred if self._axes is None else centred @ self._axes)
