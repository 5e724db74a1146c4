"""Finds pairs of images that can be copies, or show one scene, by the features of a pretrained network.

Features of the whole image change with a caption, a frame, the bars of a screenshot and other colours. So, for edited
copies, the whole image and its centre are compared with the whole and the centre of the other image, and both in gray:
of 40 copies of each of 21 kinds planted in 2,000 photographs of flowers, at least 38 had the original among their five
nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.neighbours import MAX_COMPARED_WITH_ALL, Found, Neighbours, as_bytes
from ftexp.audit.pairs import Numbers, Wanted, unique_pairs
from ftexp.progress_lines import ProgressLines

# The number of neighbours per image that can be near duplicates, and their least similarity: of 3,600 copies planted in
# three datasets, 1 % had a lower one.
NUM_NEAR, LEAST_OF_NEAR = 2, 0.6
# The same for edited copies, and the power of its spread by which each component of the features is divided: components
# in which photographs differ little are those that tell a copy from another photograph of one kind. Of 840
# copies of 21 kinds planted in photographs of flowers, hashes and these neighbours found 837; without the division, and
# with a least likeness of 0.5, they found 834 among a third more pairs.
NUM_EDITED, LEAST_OF_EDITED, POWER_OF_EDITED = 5, 0.3, 0.75
# The spread is known well enough from so many images for each feature. With fewer, components are not divided, and this
# is the least likeness.
IMAGES_FOR_POWER, LEAST_WITHOUT_POWER = 4, 0.5
WHOLE, CENTRE, GRAY = 0, 1, 2
# So many principal components are compared; they are computed from at most so many images.
NUM_COMPONENTS = 128
MAX_SAMPLE = 16_384
# Components with a smaller variance, as a share of the largest one, are noise.
LEAST_VARIANCE = 1e-4
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
        """Find pairs of images that can be near duplicates; arguments and pairs as ``HashCandidates.pairs``."""
        return [unique_pairs(one.pairs) for one in self._search((WHOLE,), wanted, queries, NUM_NEAR, LEAST_OF_NEAR, 0)]

    def edited(self, wanted: Wanted, queries: Numbers) -> Numbers:
        """Find pairs that can be edited copies or show one scene: for each query, its nearest; pairs as ``near``."""
        is_enough = len(self._numbers) >= IMAGES_FOR_POWER * self._prints.features(self._numbers[:1]).shape[2]
        power, least = (POWER_OF_EDITED, LEAST_OF_EDITED) if is_enough else (0, LEAST_WITHOUT_POWER)
        parts = [
            part
            for views in ((WHOLE, CENTRE), (GRAY,))
            for part in self._search(views, [wanted], queries, NUM_EDITED, least, power)
        ]
        return unique_pairs(Found.joined(parts).nearest(0, NUM_EDITED).pairs)

    def _search(
        self,
        views: Sequence[int],
        wanted: Sequence[Wanted],
        queries: Numbers | None,
        number: int,
        least: float,
        power: float,
    ) -> list[Found]:
        """The nearest of each image, by the best of these views of both."""
        queries = self._numbers if queries is None else np.intersect1d(queries, self._numbers)
        space = self._space(views, power)
        parts = (part for view in views for part in self._vectors(self._numbers, space, view))
        keys = torch.empty((len(views) * len(self._numbers), space.size), dtype=torch.int8)
        done = 0
        for owners, vectors in parts:
            keys[done : done + len(owners)] = as_bytes(vectors)
            done += len(owners)
        neighbours = Neighbours(keys, np.tile(self._numbers, len(views)))
        progress = ProgressLines("audit", "compared the features of", "images", len(queries) * len(views))
        found: list[list[Found]] = [[] for _ in wanted]
        done = 0
        for view in views:
            for owners, vectors in self._vectors(queries, space, view):
                for known, one in zip(found, neighbours.search(vectors, owners, wanted, number, least), strict=True):
                    known.append(one.nearest(0, number))
                progress.at(done := done + len(owners))
        return [Found.joined(known).nearest(0, number) for known in found]

    def _vectors(self, numbers: Numbers, space: _Space, view: int) -> Iterator[tuple[Numbers, Tensor]]:
        for start in range(0, len(numbers), SEARCHED_AT_ONCE):
            chunk = numbers[start : start + SEARCHED_AT_ONCE]
            yield chunk, space(self._prints.features(chunk)[:, view], view)

    def _space(self, views: Sequence[int], power: float) -> _Space:
        features = self._prints.features(self._sample)
        components = NUM_COMPONENTS if len(self._numbers) > MAX_COMPARED_WITH_ALL else features.shape[2]
        return _Space({view: features[:, view] for view in views}, components, power)


class _Space:
    """The principal components of features, divided by a power of their spread.

    All views have the same components, so that one view of an image can be compared with another view of another
    image; each view has its own mean.

    Args:
        features: of a sample, view -> [S, D].
        components: the number of components that are kept: those with the largest spread.
        power: 0: they are not divided; 1: afterwards all have the same spread.
    """

    def __init__(self, features: Mapping[int, npt.NDArray[np.float16]], components: int, power: float) -> None:
        self._means = {view: torch.from_numpy(one.astype(np.float32).mean(axis=0)) for view, one in features.items()}
        products = [(centred := self._centred(one, view)).T @ centred for view, one in features.items()]
        variances, axes = torch.linalg.eigh(torch.stack(products).sum(dim=0) / sum(map(len, features.values())))
        spreads = variances[-components:].clamp_min(LEAST_VARIANCE * variances[-1].clamp_min(1e-9)).sqrt()
        self._axes = axes[:, -components:] * spreads**-power
        self.size = self._axes.shape[1]

    def __call__(self, features: npt.NDArray[np.float16], view: int) -> Tensor:
        """The components of these features of a view, each row scaled to length 1, float32 [N, components]."""
        return torch.nn.functional.normalize(self._centred(features, view) @ self._axes)

    def _centred(self, features: npt.NDArray[np.float16], view: int) -> Tensor:
        return torch.from_numpy(features.astype(np.float32)) - self._means[view]
