"""Finds groups and times that leak from one split into another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ftexp.audit.findings import Finding
from ftexp.data.samples import SPLITS, Sample
from ftexp.data.splitting.times import times_of


def find_shared_groups(samples: Sequence[Sample]) -> list[Finding]:
    """Find groups in two splits; one finding per group and pair of splits, with the first sample of each split."""
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
    """Find pairs of splits whose times overlap.

    Returns:
        One finding per pair, with the latest sample of the earlier split and the earliest sample of the later split.
        Its score is the fraction of the earlier split that is not before all samples of the later one.
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
