"""Finds copies that were turned, framed, captioned or recoloured, and photographs of one scene, by geometry."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from ftexp.audit.aligner import Alignments, Effort, Note, align_pairs
from ftexp.audit.feature_candidates import FeatureCandidates
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.fingerprints import MIN_SIDE_FOR_EDITED_COPIES
from ftexp.audit.pairs import Numbers, Wanted, both, differ, unique_pairs
from ftexp.data.samples import SPLITS, Sample

OnScene = Literal["warn", "fail", "ignore"]


def find_edited_copies(
    samples: Sequence[Sample],
    prints: Fingerprints,
    effort: Effort,
    on_scene: OnScene,
    known: Collection[Finding],
    by_hash: Numbers,
) -> tuple[list[Finding], list[Note]]:
    """Find edited copies and scenes in two splits.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        effort: how much may be spent on aligning pictures.
        on_scene: whether scenes are listed, and with which severity.
        known: copies that were found already, which are not listed twice.
        by_hash: pairs in two splits whose hashes are alike, int64 [P, 2].

    Returns:
        What was found, and the notes of ``Alignments``.
    """
    split_of = np.array([SPLITS.index(sample.split) if sample.split else -1 for sample in samples])
    listed_already = {frozenset((one.path_a, one.path_b)) for one in known}
    findings = []
    aligned = find_aligned(samples, prints, split_of > 0, partial(differ, split_of), effort, by_hash)
    for one in aligned.fitting:
        first, second = sorted((one.first, one.second), key=lambda number: split_of[number])
        if frozenset((samples[first].path, samples[second].path)) in listed_already:
            continue
        agreement, inliers = one.alignment.agreement, one.alignment.inliers
        if one.alignment.verdict == "edited":
            findings.append(finding("edited_copy", "fail", samples[first], samples[second], agreement, inliers))
        elif on_scene != "ignore":
            findings.append(finding("same_scene", on_scene, samples[first], samples[second], agreement, inliers))
    return findings, aligned.notes


def find_aligned(
    samples: Sequence[Sample],
    prints: Fingerprints,
    queries: npt.NDArray[np.bool_],
    wanted: Wanted,
    effort: Effort,
    by_hash: Numbers,
) -> Alignments:
    """Find pairs of images of which one was edited into the other, or that show one scene.

    Args:
        samples: all samples.
        prints: their fingerprints; without features nothing is found.
        queries: bool [N], the images whose neighbours are looked at.
        wanted: which pairs to search.
        effort: how much may be spent on aligning pictures.
        by_hash: wanted pairs whose hashes are alike, which text and watermarks change least, int64 [P, 2].

    Returns:
        The fitting pairs, those with most inliers first.
    """
    have_views = prints.have_views
    numbers = np.nonzero(have_views)[0]
    small = _too_small(prints.sides, len(numbers))
    if len(numbers) < 2:
        return Alignments([], small)
    by_hash = by_hash[have_views[by_hash].all(axis=1) & queries[by_hash].any(axis=1)]
    unequal = both(wanted, partial(differ, prints.pictures))
    by_views = FeatureCandidates(prints, numbers).edited(unequal, numbers[queries[numbers]])
    found = align_pairs(samples, prints, unique_pairs(by_hash, by_views), effort)
    return Alignments(sorted(found.fitting, key=lambda one: -one.alignment.inliers), small + found.notes)


def _too_small(sides: Numbers, num_searched: int) -> list[Note]:
    """How many images are too small, if any is searched."""
    small = int((sides < MIN_SIDE_FOR_EDITED_COPIES).sum())
    if small == 0 or num_searched == 0:
        return []
    images = f"{small} images with a side under {MIN_SIDE_FOR_EDITED_COPIES} px"
    return [(logging.INFO, f"audit   {images} are not aligned, so no edited copies of them are found.")]
