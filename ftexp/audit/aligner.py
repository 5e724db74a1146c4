"""Aligns pairs of images: first coarsely, then closely if they fit. The cache keeps the result of each pair."""

from __future__ import annotations

import heapq
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial

import cv2
import numpy as np
import torch

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.common_points import NUM_REFERENCES, References
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.geometry import COARSE_INLIERS, NOTHING_FITS, Alignment, align, may_fit
from ftexp.audit.kept_features import KeptFeatures, Pair
from ftexp.audit.local_features import COARSE, FINE, Detail, LocalFeatures, find_local_features
from ftexp.audit.pairs import Numbers
from ftexp.data.digests import bytes_digest
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.errors import DataError, listed
from ftexp.machine.cores import available_cores
from ftexp.progress_lines import ProgressLines

# Pairs that are compared before the next ones are read.
PAIRS_AT_ONCE = 256
# Images whose points are kept meanwhile: 30 kB each of the coarse, 0.2 MB of the fine ones.
MAX_COARSE, MAX_FINE = 10_000, 1_000
# Part of the keys of the cache; increase it when an alignment changes.
VERSION = "alignment 2"

# The level and the text of a line of the log.
Note = tuple[int, str]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much may be spent on aligning pictures.

    Attributes:
        cache: keeps how pairs fit, by the contents of both: those that it knows cost nothing, and an audit that was
            interrupted goes on from there.
        until: by ``time.monotonic``, when no further pairs are begun; a warning says how many were left.
    """

    cache: FingerprintCache
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two samples by their numbers, the first one smaller, and how their pictures fit."""

    first: int
    second: int
    alignment: Alignment


@dataclass(frozen=True, slots=True)
class Alignments:
    """What aligning pairs of pictures has shown.

    Attributes:
        fitting: the pairs of which one was edited into the other, or that show one scene.
        notes: what was not aligned, and what fits and is not listed, for the log.
    """

    fitting: list[Aligned]
    notes: list[Note]


def align_pairs(
    samples: Sequence[Sample],
    prints: Fingerprints,
    pairs: Numbers,
    effort: Effort,
) -> Alignments:
    """Find the pairs of images of which one was edited into the other, or that show one scene.

    Args:
        samples: all samples.
        prints: their fingerprints, in the same order.
        pairs: the numbers of two samples each, int64 [P, 2].
        effort: how much may be spent.

    Returns:
        The fitting ones are in the order of ``pairs``.
    """
    found: list[Aligned] = []
    progress = ProgressLines("audit", "aligned", "pairs of pictures", len(pairs))
    with _one_thread_each(), ThreadPoolExecutor(available_cores()) as pool:
        aligner = _Aligner(samples, prints, effort.cache, pool)
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            if time.monotonic() >= effort.until:
                _warn_of_limit(len(pairs) - start, len(pairs))
                break
            chunk: list[Pair] = [(int(first), int(second)) for first, second in pairs[start : start + PAIRS_AT_ONCE]]
            found += [Aligned(*pair, one) for pair, one in zip(chunk, aligner.align(chunk), strict=True) if one.verdict]
            progress.at(start + len(chunk))
        nothing = aligner.with_common_points_alone([(one.first, one.second) for one in found], np.unique(pairs))
    notes = aligner.notes()
    if nothing:
        share = "1 pair shares" if len(nothing) == 1 else f"{len(nothing)} pairs share"
        line = f"audit   {share} only what many pictures have (a logo, a frame, a form): not listed"
        notes.append((logging.INFO, line))
    return Alignments([one for one in found if (one.first, one.second) not in nothing], notes)


def _warn_of_limit(left: int, total: int) -> None:
    log.warning(
        "audit   train.max_minutes ends the search for edited copies: %d of %d pairs of pictures were not aligned, and "
        "leaks among them are not found. A run without the limit aligns them all, and so does python -m ftexp.audit; "
        "what they find is kept for later runs.",
        left,
        total,
    )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Compute each pair on one thread, because pairs are spread over the cores; new threads inherit the setting."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


class _Aligner:
    def __init__(
        self,
        samples: Sequence[Sample],
        prints: Fingerprints,
        cache: FingerprintCache,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._samples, self._prints, self._cache, self._pool = samples, prints, cache, pool
        self._coarse = KeptFeatures(partial(self._features, detail=COARSE), pool, MAX_COARSE)
        self._fine = KeptFeatures(partial(self._features, detail=FINE), pool, MAX_FINE)
        self._plain: set[str] = set()
        self._unreadable: set[str] = set()

    def align(self, pairs: Sequence[Pair]) -> list[Alignment]:
        """How well each of these pairs fits; give it a few hundred pairs at a time."""
        ordered = [self._ordered(pair) for pair in pairs]
        keys = [self._key(pair) for pair in ordered]
        known = {}
        for key, value in self._cache.get(keys).items():
            figures, plain = json.loads(value)
            known[key] = Alignment(*figures)
            self._plain.update(plain)
        new = {key: pair for key, pair in zip(keys, ordered, strict=True) if key not in known}
        fresh = dict(zip(new, self._align(list(new.values())), strict=True))
        self._cache.put({key: self._packed(new[key], one) for key, one in fresh.items()})
        return [known[key] if key in known else fresh[key] for key in keys]

    def with_common_points_alone(self, pairs: Sequence[Pair], numbers: Numbers) -> set[Pair]:
        """Which of the pairs that fit do so by points that many of the pictures with these numbers have."""
        contents = {self._prints.content(number): number for number in numbers.tolist()} if pairs else {}
        sample = [contents[content] for content in heapq.nsmallest(NUM_REFERENCES, contents)]
        digest = bytes_digest(" ".join(self._prints.content(number) for number in sample).encode())
        keys = {pair: f"{self._key(self._ordered(pair))}: common points, of {digest}" for pair in pairs}
        known: dict[str, bytes] = {}
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            known |= self._cache.get([keys[pair] for pair in pairs[start : start + PAIRS_AT_ONCE]])
        new = [pair for pair in pairs if keys[pair] not in known]
        if new:
            references = References(sample, self._coarse.each_of(sample))
        for start in range(0, len(new), PAIRS_AT_ONCE):
            chunk = new[start : start + PAIRS_AT_ONCE]
            self._coarse.look_at(chunk)
            nothing = self._pool.map(partial(self._is_common, references), chunk)
            fresh = {keys[pair]: b"\1" if is_common else b"\0" for pair, is_common in zip(chunk, nothing, strict=True)}
            self._cache.put(fresh)
            known |= fresh
        return {pair for pair in pairs if known[keys[pair]] == b"\1"}

    def notes(self) -> list[Note]:
        """Which images could not be aligned."""
        notes = []
        if self._plain:
            notes.append((logging.INFO, f"audit   {len(self._plain)} pictures have no points to align them by."))
        if self._unreadable:
            names = listed(sorted(self._unreadable))
            why = "These images could be read the first time but not the second, so they were not aligned"
            notes.append((logging.WARNING, f"audit   {why}: {names}."))
        return notes

    def _ordered(self, pair: Pair) -> Pair:
        """A pair in the order of its contents, so that the result does not depend on the order of the samples."""
        first, second = sorted(pair, key=self._prints.content)
        return first, second

    def _key(self, pair: Pair) -> str:
        parts = [f"{self._prints.content(number)} {self._samples[number].white_level}" for number in pair]
        return ":".join([*parts, VERSION])

    def _packed(self, pair: Pair, alignment: Alignment) -> bytes:
        """What the cache keeps: the alignment, and which of both images have no points, to report them again."""
        plain = [content for number in pair if (content := self._prints.content(number)) in self._plain]
        return json.dumps([astuple(alignment), plain]).encode()

    def _align(self, pairs: Sequence[Pair]) -> list[Alignment]:
        self._coarse.look_at(pairs)
        promising = [pair for pair, fits in zip(pairs, self._pool.map(self._may_fit, pairs), strict=True) if fits]
        self._fine.look_at(promising)
        found = dict(zip(promising, self._pool.map(self._align_closely, promising), strict=True))
        return [found.get(pair, NOTHING_FITS) for pair in pairs]

    def _may_fit(self, pair: Pair) -> bool:
        both = self._coarse.of(pair)
        return both is not None and may_fit(*both)

    def _is_common(self, references: References, pair: Pair) -> bool:
        both = self._coarse.of(pair)
        return both is not None and references.leave_nothing_of(pair, *both)

    def _align_closely(self, pair: Pair) -> Alignment:
        both = self._fine.of(pair)
        return NOTHING_FITS if both is None else align(*both)

    def _features(self, number: int, detail: Detail) -> LocalFeatures | None:
        try:
            # Twice the side that is searched, because a JPEG is reduced without a filter.
            found = find_local_features(open_image(self._samples[number], 2 * detail.longer_side), detail)
        except DataError:
            self._unreadable.add(self._samples[number].path)
            return None
        if len(found.points) < COARSE_INLIERS:
            self._plain.add(self._prints.content(number))
        return found
