"""Writes the groups of images that show one picture or scene, so that ``data.groups`` can split by them."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ftexp.audit.aligner import Effort
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.ties import tie_duplicates
from ftexp.data.samples import Sample
from ftexp.files.whole_file import replaced_whole

# A group with a larger share of the images leaves little to choose when the data are split.
LARGE_SHARE = 0.05

log = logging.getLogger(__name__)


def write_groups(file: Path, samples: Sequence[Sample], prints: Fingerprints, effort: Effort | None) -> None:
    """Write ``path,group`` for every image that belongs to a group of two and more.

    Args:
        file: the table.
        samples: all samples; those of one group stay in one group.
        prints: their fingerprints, in the same order.
        effort: how much may be spent on aligning pictures; None: edited copies and scenes are not searched.
    """
    group_of = tie_duplicates(samples, prints, effort, scenes=True)
    sizes = Counter(group_of.values())
    with replaced_whole(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "group"])
        rows.writerows((sample.path, group_of[sample.path]) for sample in samples if sample.path in group_of)
    log.info("audit   %d images are in %d groups; data.groups=%s splits by them.", len(group_of), len(sizes), file)
    group, size = max(sizes.items(), key=lambda item: item[1], default=("", 0))
    if size > LARGE_SHARE * len(samples):
        example = next(path for path, name in group_of.items() if name == group)
        log.warning(
            "audit   Group %s has %d of %d images, for example %s: connected pair by pair, its first and its last image"
            " can be different things. Look at it before you split by these groups.",
            group,
            size,
            len(samples),
            example,
        )
