"""The images of a run, known by their content: a run that goes on finds them wherever they lie by then."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ftexp.data.digests import ContentDigests
from ftexp.data.samples import SPLITS, Sample
from ftexp.data.splitting.splits import Splits
from ftexp.errors import CheckpointError

FILE = "digests.csv"


class KnownImage(NamedTuple):
    """A row of ``digests.csv``; files of ftexp 0.1.0 have neither label nor split, and no image of the test split."""

    path: str
    digest: str
    label: str = ""
    split: str = ""


def images_of(splits: Splits) -> list[KnownImage]:
    """All of them, in the order in which the run has them; reads the files that have not been read before."""
    named = [("train", sample) for sample in splits.train] + [("val", sample) for sample in splits.val]
    images = [KnownImage(sample.path, splits.digests.of(sample), sample.label, split) for split, sample in named]
    test = splits.test.digests()
    return images + [KnownImage(row["path"], test[row["path"]], row["label"], "test") for row in splits.test.listing()]


def write_images(folder: Path, images: Sequence[KnownImage]) -> None:
    """Write ``digests.csv``, whole or not at all."""
    unfinished = folder / "digests.tmp"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(KnownImage._fields)
        writer.writerows(images)
    os.replace(unfinished, folder / FILE)


def read_images(folder: Path) -> list[KnownImage]:
    """Read ``digests.csv``.

    Raises:
        CheckpointError: when the folder has no such file.
    """
    if not (folder / FILE).is_file():
        raise CheckpointError(
            f"{folder / FILE} is missing, which says what images the run began with. Put it back, or start a new run."
        )
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        return [
            KnownImage(row["path"], row["digest"], row.get("label", ""), row.get("split", ""))
            for row in csv.DictReader(file)
        ]


def as_they_were(assigned: Sequence[Sample], known: Sequence[KnownImage], digests: ContentDigests) -> list[Sample]:
    """The samples in the order and the splits in which a run has them, whatever their files are called by now.

    Order and splits follow from the paths, so both may be others where files were moved or renamed.

    Args:
        assigned: each with its split.

    Returns:
        ``assigned`` as they are where they are not the same images with the same labels.
    """
    ordered = sorted(assigned, key=lambda sample: SPLITS.index(str(sample.split)))
    if [(sample.path, sample.split) for sample in ordered] == [(image.path, image.split) for image in known]:
        return list(assigned)
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in assigned:
        found[digests.of(sample), sample.label].append(sample)
    if Counter({key: len(samples) for key, samples in found.items()}) != Counter(
        (image.digest, image.label) for image in known
    ):
        return list(assigned)
    return [replace(found[image.digest, image.label].pop(0), split=image.split) for image in known]


def changed_images(before: Sequence[KnownImage], now: Sequence[KnownImage]) -> list[str]:
    """The paths of images that are not in both, by their content; of files of ftexp 0.1.0, by their paths as well."""
    if any(not image.split for image in before):
        then = {image.path: image.digest for image in before}
        learnt = {image.path: image.digest for image in now if image.split != "test"}
        return sorted(path for path in then.keys() | learnt.keys() if then.get(path) != learnt.get(path))
    return sorted({*_without(before, now), *_without(now, before)})


def _without(images: Sequence[KnownImage], others: Sequence[KnownImage]) -> list[str]:
    left = Counter(image.digest for image in others)
    missing = []
    for image in images:
        left[image.digest] -= 1
        if left[image.digest] < 0:
            missing.append(image.path)
    return missing
