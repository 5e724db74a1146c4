"""Finds images that are the same, exactly, nearly or edited, in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ftexp.audit.aligner import Effort, Note
from ftexp.audit.edited_copies import OnScene, find_edited_copies
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.near_duplicates import NearDuplicates, Pair, Searched
from ftexp.audit.pairs import Numbers, differ, is_equal
from ftexp.data.samples import SPLITS, Sample


@dataclass(frozen=True, slots=True)
class Copies:
    """What the search for copies has found among samples with their splits.

    Attributes:
        findings: the copies in two splits, exact, near and edited, and scenes.
        across: the pairs of near duplicates in two splits.
        within: those within one.
        notes: what the search leaves out, for the log.
    """

    findings: list[Finding]
    across: list[Pair]
    within: list[Pair]
    notes: list[Note]


def find_copies(samples: Sequence[Sample], prints: Fingerprints, effort: Effort, on_scene: OnScene) -> Copies:
    """Find copies in two splits, exact, near and edited.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        effort: how much may be spent on aligning pictures, which finds edited copies.
        on_scene: whether photographs of one scene, found by the same search, are listed, and with which severity.
    """
    across, within = near_duplicates(samples, prints)
    copies = [*find_same_images(samples, prints), *near_duplicate_findings(samples, across.near)]
    edited, notes = find_edited_copies(samples, prints, effort, on_scene, copies, across.by_hash)
    return Copies([*copies, *edited], across.near, within.near, notes)


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


def _earlier(split: str | None, other: str | None) -> bool:
    return split is not None and other is not None and SPLITS.index(split) < SPLITS.index(other)
