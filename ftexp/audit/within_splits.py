"""Finds copies inside one split: they count a picture several times, and can have different labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftexp.audit.duplicates import by_pixels
from ftexp.audit.findings import Finding, finding
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.near_duplicates import Pair
from ftexp.audit.pairs import components
from ftexp.data.samples import SPLITS, Sample

_EFFECT = {
    "train": "Training sees these pictures more often than others",
    "val": "These pictures count several times in the validation scores, so their intervals are too narrow",
    "test": "These pictures count several times in the test scores, so their intervals are too narrow",
}


def describe_repeats(samples: Sequence[Sample], prints: Fingerprints, near: Sequence[Pair]) -> list[str]:
    """Say for each split with copies how many there are, which image has most, and what follows.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        near: near duplicates inside of splits.
    """
    lines, pictures = [], prints.pictures
    for split in SPLITS:
        inside = [i for i, sample in enumerate(samples) if sample.split == split]
        edges = [(members[0], other) for members in by_pixels(pictures[inside]) for other in members[1:]]
        place = {number: at for at, number in enumerate(inside)}
        edges += [(place[i], place[j]) for i, j, _ in near if i in place and j in place]
        if edges:
            sizes = np.bincount(set_of := components(edges, len(inside)))
            repeats, largest = int((sizes - 1).sum()), int(sizes.argmax())
            example = samples[inside[int(np.argmax(set_of == largest))]].path
            lines.append(
                f"{split}: {repeats} of {len(inside)} images are copies of others in this split; {example} occurs "
                f"{sizes[largest]} times. {_EFFECT[split]}."
            )
    return lines


def find_repeats(samples: Sequence[Sample], prints: Fingerprints, near: Sequence[Pair]) -> list[Finding]:
    """Find images that are in one split again, exactly or nearly.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        near: near duplicates inside of splits.

    Returns:
        A warning for each image whose pixels are those of an earlier one of its split, with the first of them; then
        one for each pair of near duplicates.
    """
    repeats = []
    for members in by_pixels(prints.pictures):
        first_in: dict[str | None, int] = {}
        for i in members:
            first = first_in.setdefault(samples[i].split, i)
            repeats += [(i, first)] if i != first else []
    findings = [finding("repeat", "warn", samples[first], samples[i], 1.0) for i, first in sorted(repeats)]
    return findings + [finding("near_repeat", "warn", samples[i], samples[j], score) for i, j, score in near]


def find_two_labels(samples: Sequence[Sample], prints: Fingerprints, near: Sequence[Pair]) -> list[Finding]:
    """Find pictures with different labels in train and val: for equal pixels, one of them is wrong for certain.

    Args:
        samples: all samples; labels of the test split are not used.
        prints: their fingerprints, in the same order.
        near: near duplicates, within and across splits.

    Returns:
        For equal pixels, a finding for each label that the first image of these pixels does not have; the near
        duplicates with two labels follow.
    """
    findings = []
    for members in by_pixels(prints.pictures):
        usable = [samples[i] for i in members if samples[i].split in ("train", "val")]
        first_with = {sample.label: sample for sample in reversed(usable)}
        findings += [
            finding("two_labels", "warn", usable[0], other, 1.0)
            for other in usable
            if other.label != usable[0].label and first_with[other.label] is other
        ]
    for i, j, score in near:
        first, second = samples[i], samples[j]
        if first.label != second.label and {first.split, second.split} <= {"train", "val"}:
            findings.append(finding("two_labels", "warn", first, second, score))
    return findings
