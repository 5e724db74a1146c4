"""Finds images that are the same, exactly or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.candidates import pairs_by_features, pairs_by_hash, unique_pairs
from ftexp.audit.edited_copies import find_aligned
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprints import MIN_SIDE_FOR_NEAR_DUPLICATES, Fingerprint
from ftexp.audit.pairs import Wanted, differ, is_equal, pictures_apart
from ftexp.audit.registration import likeness
from ftexp.data.samples import SPLITS, Sample

# Two images of at least this similarity count as the same. Copies of photographs score above 0.9, unrelated images
# below 0.6; other photographs of the same scene reach 0.87 (hands before one wall), and two images of one blood cell
# 0.6 to 0.98.
MIN_LIKENESS = 0.88
# The largest number of rounds; each finds copies that were hidden by nearer neighbours of an earlier round.
MAX_ROUNDS = 10

# The indices of two samples and their similarity.
Pair = tuple[int, int, float]
# The number of pairs whose pixels are in memory at a time.
PAIRS_AT_ONCE = 4096


def find_same_images(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> list[Finding]:
    """Find images with equal pixels in two splits; each is paired with the first such image in every other split."""
    pairs = set()
    for members in by_pixels(prints):
        first_in = {samples[i].split: i for i in reversed(members)}
        for i in members:
            for split, other in first_in.items():
                if split != samples[i].split:
                    pairs.add((i, other) if _earlier(samples[i].split, split) else (other, i))
    return [finding("same_image", "fail", samples[i], samples[j], 1.0) for i, j in sorted(pairs)]


def find_near_duplicates(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> list[Finding]:
    """Find images in two splits that differ only in size, compression, brightness, a mild crop or a flip."""
    return near_duplicate_findings(samples, near_duplicate_pairs(prints, partial(differ, _splits_of(samples))))


def near_duplicates(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> tuple[list[Pair], list[Pair]]:
    """Find the near duplicates across splits, and those within one."""
    across, within = (near_duplicate_pairs(prints, partial(of, _splits_of(samples))) for of in (differ, is_equal))
    return across, within


def near_duplicate_findings(samples: Sequence[Sample], pairs: Sequence[Pair]) -> list[Finding]:
    """The findings of near duplicates across splits, the image of the earlier split first."""
    split_of = _splits_of(samples)
    ordered = [(i, j, score) if split_of[i] < split_of[j] else (j, i, score) for i, j, score in pairs]
    return [finding("near_duplicate", "fail", samples[i], samples[j], score) for i, j, score in ordered]


def _splits_of(samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    return np.array([SPLITS.index(sample.split) if sample.split else -1 for sample in samples])


def tie_duplicates(
    samples: Sequence[Sample],
    prints: Sequence[Fingerprint],
    cache: FingerprintCache | None = None,
    *,
    scenes: bool = False,
) -> dict[str, str]:
    """Find sets of copies.

    Args:
        samples: all samples.
        prints: their fingerprints, in the same order.
        cache: keeps how pairs of pictures fit; None: edited copies, for which all images are aligned with their
            nearest, are not searched.
        scenes: whether photographs of one scene belong together, too, and the images of a group.

    Returns:
        Path -> name of its set, for every image that has a copy, exact, near or edited, in the data.
    """
    edges = [(members[0], other) for members in by_pixels(prints) for other in members[1:]]
    for _ in range(MAX_ROUNDS):
        component = components(edges, len(samples))
        new = near_duplicate_pairs(prints, partial(differ, component))
        if not new:
            break
        edges += [(i, j) for i, j, _ in new]
    if cache is not None:
        wanted = partial(differ, components(edges, len(samples)))
        aligned = find_aligned(samples, prints, np.ones(len(samples), dtype=bool), wanted, cache)
        edges += [(one.first, one.second) for one in aligned if scenes or one.alignment.verdict == "edited"]
    if scenes:
        first_of = {sample.group: number for number, sample in reversed(list(enumerate(samples)))}
        edges += [(first_of[s.group], number) for number, s in enumerate(samples) if s.group is not None]
    component = components(edges, len(samples))
    sizes = np.bincount(component)
    return {sample.path: str(number) for sample, number in zip(samples, component, strict=True) if sizes[number] > 1}


def near_duplicate_pairs(prints: Sequence[Fingerprint], wanted: Wanted) -> list[Pair]:
    """Find near duplicates whose pixels are not equal, among the wanted pairs; the most similar come first."""
    large = np.array([i for i, p in enumerate(prints) if p.side >= MIN_SIDE_FOR_NEAR_DUPLICATES], dtype=np.int64)
    if len(large) < 2:
        return []
    thumbnails = np.stack([prints[i].thumbnail for i in large])
    pairs = pairs_by_hash(thumbnails, pictures_apart(prints, large, wanted))
    seen = np.array([place for place, i in enumerate(large) if prints[i].features.size], dtype=np.int64)
    if len(seen) > 1:
        features = np.stack([prints[i].features for i in large[seen]])
        by_features = pairs_by_features(features, pictures_apart(prints, large[seen], wanted))
        pairs = unique_pairs(pairs, seen[by_features])
    images = torch.from_numpy(thumbnails)
    chunks = (pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE))
    scores = np.concatenate(
        [np.zeros(0, np.float32), *(likeness(images[chunk[:, 0]], images[chunk[:, 1]]).numpy() for chunk in chunks)]
    )
    order = np.argsort(-scores, kind="stable")
    return [
        (int(large[pairs[n, 0]]), int(large[pairs[n, 1]]), float(scores[n])) for n in order if scores[n] >= MIN_LIKENESS
    ]


def by_pixels(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """The numbers of images with equal pixels, for each picture that occurs twice or more."""
    members: dict[str, list[int]] = {}
    for index, fingerprint in enumerate(prints):
        members.setdefault(fingerprint.pixels, []).append(index)
    return [indices for indices in members.values() if len(indices) > 1]


def components(edges: Sequence[tuple[int, int]], size: int) -> npt.NDArray[np.int64]:
    """The number of the set, of ``size`` images, that each belongs to by any chain of edges, int64 [size]."""
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    number: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return number


def _earlier(split: str | None, other: str | None) -> bool:
    return split is not None and other is not None and SPLITS.index(split) < SPLITS.index(other)
