"""Finds copies that were turned, framed, captioned or recoloured, and photographs of one scene, by geometry."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.candidates import Allowed, candidate_pairs
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprints import Fingerprint
from ftexp.audit.geometry import NOTHING_FITS, Alignment, align
from ftexp.audit.local_features import LocalFeatures, find_local_features
from ftexp.audit.pairs import Wanted, differ
from ftexp.audit.view_candidates import pairs_by_views
from ftexp.data.loading.images import open_image
from ftexp.data.samples import SPLITS, Sample
from ftexp.errors import DataError, listed
from ftexp.machine.cores import available_cores

# Pairs that are compared before the next ones are read, and images whose local features are kept meanwhile: 0.2 MB
# each.
PAIRS_AT_ONCE = 256
MAX_KEPT = 2000
# Part of the keys of the cache; increase it when an alignment changes.
VERSION = "alignment 1"

log = logging.getLogger(__name__)

# The numbers of two samples.
Pair = tuple[int, int]
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
    if len(numbers) < 2:
        return []
    _, picture = np.unique([prints[i].pixels for i in numbers], return_inverse=True)

    def allowed(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        different: npt.NDArray[np.bool_] = picture[rows][:, None] != picture[None, :]
        return different & wanted(numbers[rows], numbers)

    chosen = _candidates([prints[i] for i in numbers], queries[numbers], allowed)
    pairs = [(int(i), int(j)) for i, j in numbers[chosen]]
    log.info("audit   aligning %d pairs of pictures (audit.geometry); what is known of a pair is kept", len(pairs))
    with ThreadPoolExecutor(available_cores()) as pool, _one_thread_each():
        aligner = _Aligner(samples, prints, cache, pool)
        chunks = [pairs[start : start + PAIRS_AT_ONCE] for start in range(0, len(pairs), PAIRS_AT_ONCE)]
        alignments = [one for chunk in chunks for one in aligner.align(chunk)]
    aligner.warn()
    found = [Aligned(*pair, one) for pair, one in zip(pairs, alignments, strict=True) if one.verdict]
    return sorted(found, key=lambda one: -one.alignment.inliers)


def _candidates(
    prints: Sequence[Fingerprint], queries: npt.NDArray[np.bool_], allowed: Allowed
) -> npt.NDArray[np.int64]:
    """The pairs to align: by the features of views, and by hashes, which text and watermarks change least."""
    features, views, thumbnails = (
        np.stack([getattr(one, name) for one in prints]) for name in ("features", "views", "thumbnail")
    )
    by_hash = candidate_pairs(thumbnails, features[:, :0], allowed)
    by_hash = by_hash[queries[by_hash].any(axis=1)]
    by_views = pairs_by_views(features, views, np.nonzero(queries)[0], allowed)
    return np.unique(np.concatenate([by_hash, by_views]), axis=0)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """The pairs are spread over the cores, not each of them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Aligner:
    """Aligns pairs of images. It keeps the local features of the last images, and how pairs fit in the cache."""

    def __init__(
        self,
        samples: Sequence[Sample],
        prints: Sequence[Fingerprint],
        cache: FingerprintCache,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._samples, self._prints = samples, prints
        self._cache, self._pool = cache, pool
        self._kept: dict[int, LocalFeatures | None] = {}
        self._unreadable: set[str] = set()

    def align(self, pairs: Sequence[Pair]) -> list[Alignment]:
        """How each of a few hundred pairs fits."""
        ordered = [self._ordered(pair) for pair in pairs]
        keys = [self._key(pair) for pair in ordered]
        known = {key: Alignment(*json.loads(value)) for key, value in self._cache.get(keys).items()}
        new = {key: pair for key, pair in zip(keys, ordered, strict=True) if key not in known}
        self._look_at({number for pair in new.values() for number in pair})
        fresh = dict(zip(new, self._pool.map(self._align, new.values()), strict=True))
        self._cache.put({key: json.dumps(astuple(one)).encode() for key, one in fresh.items()})
        return [known[key] if key in known else fresh[key] for key in keys]

    def warn(self) -> None:
        """Say which images could not be read."""
        if self._unreadable:
            names = listed(sorted(self._unreadable))
            log.warning(
                "audit   These images could be read at first and not again, so they were not aligned: %s.", names
            )

    def _ordered(self, pair: Pair) -> Pair:
        """By content, so that a pair fits in one way whatever the order of the samples."""
        first, second = sorted(pair, key=lambda number: self._prints[number].content)
        return first, second

    def _key(self, pair: Pair) -> str:
        parts = [f"{self._prints[number].content} {self._samples[number].white_level}" for number in pair]
        return ":".join([*parts, VERSION])

    def _look_at(self, numbers: set[int]) -> None:
        if len(self._kept.keys() | numbers) > MAX_KEPT:
            self._kept = {number: one for number, one in self._kept.items() if number in numbers}
        missing = sorted(numbers - self._kept.keys())
        self._kept |= dict(zip(missing, self._pool.map(self._features, missing), strict=True))

    def _features(self, number: int) -> LocalFeatures | None:
        try:
            return find_local_features(open_image(self._samples[number]))
        except DataError:
            self._unreadable.add(self._samples[number].path)
            return None

    def _align(self, pair: Pair) -> Alignment:
        first, second = (self._kept[number] for number in pair)
        return NOTHING_FITS if first is None or second is None else align(first, second)
