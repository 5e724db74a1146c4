"""Finds images that are the same, exactly or nearly, in two splits or anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ftexp.audit.aligner import Effort
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.edited_copies import find_aligned
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.near_duplicates import NO_PAIRS, NearDuplicates, Pair, Searched
from ftexp.audit.pairs import Numbers, differ, is_equal, unique_pairs
from ftexp.data.samples import SPLITS, Sample

# The largest number of rounds; each finds copies that were hidden by nearer neighbours of an earlier round.
MAX_ROUNDS = 10


def find_same_images(samples: Sequence[Sample], prints: Fingerprints) -> list[Finding]:
    """Find images with equal pixels in two splits; each is paired with the first such image in every other split."""
    pairs = set()
    for members in by_pixels(prints.pictures):
        first_in = {samples[i].split: i for i in reversed(members)}
        for i in members:
            for split, other in first_in.items():
                if split != samples[i].split:
                    pairs.add((i, other) if _earlier(samples[i].split, split) else (other, i))
    return [finding("same_image", "fail", samples[i], samples[j], 1.0) for i, j in sorted(pairs)]


def near_duplicates(samples: Sequence[Sample], prints: Fingerprints) -> tuple[Searched, Searched]:
    """Find the near duplicates across splits, and those within one."""
    across, within = NearDuplicates(prints).search([partial(of, _splits_of(samples)) for of in (differ, is_equal)])
    return across, within


def near_duplicate_findings(samples: Sequence[Sample], pairs: Sequence[Pair]) -> list[Finding]:
    """The findings of near duplicates across splits, the image of the earlier split first.

    They differ only in size, compression, brightness, a mild crop or a flip.
    """
    split_of = _splits_of(samples)
    ordered = [(i, j, score) if split_of[i] < split_of[j] else (j, i, score) for i, j, score in pairs]
    return [finding("near_duplicate", "fail", samples[i], samples[j], score) for i, j, score in ordered]


def _splits_of(samples: Sequence[Sample]) -> Numbers:
    return np.array([SPLITS.index(sample.split) if sample.split else -1 for sample in samples])


def tie_duplicates(
    samples: Sequence[Sample],
    prints: Fingerprints,
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
    edges = [(members[0], other) for members in by_pixels(prints.pictures) for other in members[1:]]
    near, changed, by_hash = NearDuplicates(prints), None, [NO_PAIRS]
    component = components(edges, len(samples))
    for _ in range(MAX_ROUNDS):
        (found,) = near.search([partial(differ, component)], changed)
        by_hash.append(found.by_hash)
        if not found.near:
            break
        edges += [(i, j) for i, j, _ in found.near]
        component = components(edges, len(samples))
        # The nearest neighbours of all others are the same as before.
        changed = np.nonzero(np.isin(component, component[[i for i, _, _ in found.near]]))[0]
    if cache is not None:
        pairs = unique_pairs(*by_hash)
        pairs = pairs[component[pairs[:, 0]] != component[pairs[:, 1]]]
        everyone = np.ones(len(samples), dtype=bool)
        aligned = find_aligned(samples, prints, everyone, partial(differ, component), Effort(cache), pairs)
        edges += [(one.first, one.second) for one in aligned if scenes or one.alignment.verdict == "edited"]
    if scenes:
        first_of = {sample.group: number for number, sample in reversed(list(enumerate(samples)))}
        edges += [(first_of[s.group], number) for number, s in enumerate(samples) if s.group is not None]
    component = components(edges, len(samples))
    sizes = np.bincount(component)
    return {sample.path: str(number) for sample, number in zip(samples, component, strict=True) if sizes[number] > 1}


def by_pixels(pictures: Numbers) -> list[list[int]]:
    """The numbers of images with equal pixels, for each picture that occurs twice or more, the first ones first.

    Args:
        pictures: a number for each image, equal where the pixels are, int64 [N].
    """
    order = np.argsort(pictures, kind="stable")
    starts = np.nonzero(np.diff(pictures[order], prepend=-1))[0]
    several = np.nonzero(np.diff(starts, append=len(order)) > 1)[0]
    ends = np.append(starts, len(order))
    return sorted(order[ends[at] : ends[at + 1]].tolist() for at in several)


def components(edges: Sequence[tuple[int, int]], size: int) -> Numbers:
    """Of each of ``size`` images the number of its set, int64 [size]; a chain of edges joins images to one set."""
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    first = np.arange(size)  # of each image, one of its set with a smaller number
    while len(ends):  # sets with an edge between them are joined, as in Shiloach and Vishkin (1982)
        np.minimum.at(first, ends.max(axis=1), ends.min(axis=1))
        while not np.array_equal(first, first[first]):
            first = first[first]
        ends = first[ends]
        ends = ends[ends[:, 0] != ends[:, 1]]
    number: Numbers = np.unique(first, return_inverse=True)[1]
    return number


def _earlier(split: str | None, other: str | None) -> bool:
    return split is not None and other is not None and SPLITS.index(split) < SPLITS.index(other)
