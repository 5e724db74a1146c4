"""Finds copies that were turned, framed, captioned or recoloured, and photographs of one scene, by geometry."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ftexp.audit.aligner import align_pairs
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.candidates import pairs_by_hash, unique_pairs
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprints import MIN_SIDE_FOR_EDITED_COPIES, Fingerprint
from ftexp.audit.geometry import Alignment
from ftexp.audit.pairs import Allowed, Wanted, differ, pictures_apart
from ftexp.audit.view_candidates import pairs_by_views
from ftexp.data.samples import SPLITS, Sample

log = logging.getLogger(__name__)

OnScene = Literal["warn", "fail", "ignore"]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two samples by their numbers, the first one smaller, and how their pictures fit."""

    first: int
    second: int
    alignment: Alignment


def find_edited_copies(
    samples: Sequence[Sample],
    prints: Sequence[Fingerprint],
    cache: FingerprintCache,
    on_scene: OnScene,
    known: Collection[Finding],
) -> list[Finding]:
    """Find edited copies and scenes in two splits.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        cache: keeps how pairs fit, by the contents of both.
        on_scene: whether scenes are listed, and with which severity.
        known: copies that were found already, which are not listed twice.
    """
    split_of = np.array([SPLITS.index(sample.split) if sample.split else -1 for sample in samples])
    listed_already = {frozenset((one.path_a, one.path_b)) for one in known}
    findings = []
    for one in find_aligned(samples, prints, split_of > 0, partial(differ, split_of), cache):
        first, second = sorted((one.first, one.second), key=lambda number: split_of[number])
        if frozenset((samples[first].path, samples[second].path)) in listed_already:
            continue
        agreement, inliers = one.alignment.agreement, one.alignment.inliers
        if one.alignment.verdict == "edited":
            findings.append(finding("edited_copy", "fail", samples[first], samples[second], agreement, inliers))
        elif on_scene != "ignore":
            findings.append(finding("same_scene", on_scene, samples[first], samples[second], agreement, inliers))
    return findings


def find_aligned(
    samples: Sequence[Sample],
    prints: Sequence[Fingerprint],
    queries: npt.NDArray[np.bool_],
    wanted: Wanted,
    cache: FingerprintCache,
) -> list[Aligned]:
    """Find pairs of images of which one was edited into the other, or that show one scene.

    Args:
        samples: all samples.
        prints: their fingerprints; without features nothing is found.
        queries: bool [N], the images whose neighbours are looked at.
        wanted: which pairs to search.
        cache: keeps how pairs fit, by the contents of both.

    Returns:
        The pairs with a verdict, those with most inliers first.
    """
    numbers = np.array([i for i, one in enumerate(prints) if one.views.size], dtype=np.int64)
    _report_small(prints)
    if len(numbers) < 2:
        return []
    chosen = _candidates([prints[i] for i in numbers], queries[numbers], pictures_apart(prints, numbers, wanted))
    pairs = [(int(i), int(j)) for i, j in numbers[chosen]]
    alignments = align_pairs(samples, prints, pairs, cache)
    found = [Aligned(*pair, one) for pair, one in zip(pairs, alignments, strict=True) if one.verdict]
    return sorted(found, key=lambda one: -one.alignment.inliers)


def _report_small(prints: Sequence[Fingerprint]) -> None:
    """Say how many images are too small, if any is searched."""
    small = sum(one.side < MIN_SIDE_FOR_EDITED_COPIES for one in prints)
    if small > 0 and any(one.views.size for one in prints):
        log.info(
            "audit   %d images with a side under %d px are not aligned, so no edited copies of them are found.",
            small,
            MIN_SIDE_FOR_EDITED_COPIES,
        )


def _candidates(
    prints: Sequence[Fingerprint], queries: npt.NDArray[np.bool_], allowed: Allowed
) -> npt.NDArray[np.int64]:
    """The pairs to align: by the features of views, and by hashes, which text and watermarks change least."""
    features, views, thumbnails = (
        np.stack([getattr(one, name) for one in prints]) for name in ("features", "views", "thumbnail")
    )
    by_hash = pairs_by_hash(thumbnails, allowed)
    by_hash = by_hash[queries[by_hash].any(axis=1)]
    by_views = pairs_by_views(features, views, np.nonzero(queries)[0], allowed)
    return unique_pairs(by_hash, by_views)
