"""Finds pairs of images that differ only in size, compression, brightness, a mild crop or a flip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ftexp.audit.feature_candidates import FeatureCandidates
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.hash_candidates import HashCandidates
from ftexp.audit.pairs import Numbers, Wanted, both, differ, unique_pairs
from ftexp.audit.registration import likeness
from ftexp.progress_lines import ProgressLines

# Smaller images, by their shorter side in pixels, have too little detail to distinguish a copy from another image of
# the same kind. Exact copies are found at any size.
MIN_SIDE_FOR_NEAR_DUPLICATES = 24
# Two images of at least this similarity count as the same. Copies of photographs score above 0.9, unrelated images
# below 0.6; other photographs of the same scene reach 0.87 (hands before one wall), and two images of one blood cell
# 0.6 to 0.98.
MIN_LIKENESS = 0.88
# The number of pairs whose pixels are in memory at a time.
PAIRS_AT_ONCE = 4096

# The numbers of two samples and their similarity.
Pair = tuple[int, int, float]
NO_PAIRS = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found among the wanted pairs.

    Attributes:
        near: the near duplicates, the most similar first.
        by_hash: pairs whose hashes are alike, near duplicates or not, int64 [P, 2].
    """

    near: list[Pair]
    by_hash: Numbers


class NearDuplicates:
    """The search among images whose pixels are not equal.

    Args:
        prints: the fingerprints of all images.
    """

    def __init__(self, prints: Fingerprints) -> None:
        self._prints = prints
        self._not_equal = partial(differ, prints.pictures)
        is_large = prints.sides >= MIN_SIDE_FOR_NEAR_DUPLICATES
        large, seen = np.nonzero(is_large)[0], np.nonzero(is_large & prints.have_features)[0]
        self._hashes = HashCandidates(prints, large) if len(large) > 1 else None
        self._features = FeatureCandidates(prints, seen) if len(seen) > 1 else None

    def search(self, wanted: Sequence[Wanted], queries: Numbers | None = None) -> list[Searched]:
        """Find near duplicates.

        Args:
            wanted: which pairs to search; each condition gets a search of its own.
            queries: pairs are searched of these images with others, int64 [Q]; None: of all.

        Returns:
            What was found, for each of ``wanted``.
        """
        unequal = [both(one, self._not_equal) for one in wanted]
        nothing = [NO_PAIRS for _ in wanted]
        by_hash = nothing if self._hashes is None else self._hashes.pairs(unequal, queries)
        by_features = nothing if self._features is None else self._features.near(unequal, queries)
        return [
            Searched(self._alike(unique_pairs(*pairs)), pairs[0]) for pairs in zip(by_hash, by_features, strict=True)
        ]

    def _alike(self, pairs: Numbers) -> list[Pair]:
        """Compare the pixels of pairs, and return those that are near duplicates, the most similar first."""
        progress = ProgressLines("audit", "compared", "pairs of pictures", len(pairs))
        found: list[Pair] = []
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            chunk = pairs[start : start + PAIRS_AT_ONCE]
            first, second = (torch.from_numpy(self._prints.thumbnails(chunk[:, side])) for side in (0, 1))
            scores = likeness(first, second).numpy()
            alike = np.nonzero(scores >= MIN_LIKENESS)[0]
            found += [(int(chunk[n, 0]), int(chunk[n, 1]), float(scores[n])) for n in alike]
            progress.at(start + len(chunk))
        return sorted(found, key=lambda pair: -pair[2])
