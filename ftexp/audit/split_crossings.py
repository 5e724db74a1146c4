"""Groups, times and labels that cross from one split into another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ftexp.audit.findings import Finding
from ftexp.audit.fingerprints import Fingerprint
from ftexp.data.samples import SPLITS, Sample
from ftexp.data.splitting.times import times_of


def find_shared_groups(samples: Sequence[Sample]) -> list[Finding]:
    """One finding per group and pair of splits it is in, with the first sample of either."""
    first: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        if sample.group is not None and sample.split is not None:
            first.setdefault(sample.group, {}).setdefault(sample.split, sample)
    return [
        Finding("group", "fail", a, members[a].path, b, members[b].path, 1.0)
        for members in first.values()
        for a, b in itertools.combinations(SPLITS, 2)
        if a in members and b in members
    ]


def find_future_in_training(samples: Sequence[Sample]) -> list[Finding]:
    """One finding per pair of splits that are not in order: the latest of the earlier, the earliest of the later.

    Its score is the share of the earlier split that is not strictly before the later one.
    """
    dated = [sample for sample in samples if sample.time is not None]
    times = times_of(dated)
    findings = []
    for a, b in itertools.combinations(SPLITS, 2):
        in_a = np.array([i for i, sample in enumerate(dated) if sample.split == a], dtype=int)
        in_b = np.array([i for i, sample in enumerate(dated) if sample.split == b], dtype=int)
        if len(in_a) and len(in_b) and times[in_a].max() >= times[in_b].min():
            latest, earliest = in_a[times[in_a].argmax()], in_b[times[in_b].argmin()]
            share = float((times[in_a] >= times[in_b].min()).mean())
            findings.append(Finding("time", "fail", a, dated[latest].path, b, dated[earliest].path, share))
    return findings


def find_two_labels(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> list[Finding]:
    """Equal pixels under two labels, in train and val; the labels of the test split are not looked at."""
    first: dict[str, dict[str, Sample]] = {}
    findings = []
    for sample, fingerprint in zip(samples, prints, strict=True):
        if sample.split == "test" or sample.split is None:
            continue
        seen = first.setdefault(fingerprint.pixels, {})
        for label, other in seen.items():
            if label != sample.label and other.split is not None and sample.label not in seen:
                findings.append(Finding("two_labels", "warn", other.split, other.path, sample.split, sample.path, 1.0))
        seen.setdefault(sample.label, sample)
    return findings
