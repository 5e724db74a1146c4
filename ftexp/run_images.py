"""The images of a run, identified by their content, so that a run can be resumed after the files were moved."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from ftexp.data.columns import Column, Paths, Repeating, Texts
from ftexp.data.digests import ContentDigests
from ftexp.data.samples import SPLITS, SampleTable
from ftexp.data.splitting.splits import Splits
from ftexp.data.table import Table
from ftexp.errors import CheckpointError
from ftexp.files.whole_file import replaced_whole

FILE = "digests.csv"


class KnownImage(NamedTuple):
    """A row of ``digests.csv``. Files of ftexp 0.1.0 have no label, no split and no images of the test split."""

    path: str
    digest: str
    label: str = ""
    split: str = ""


class KnownImages(Table[KnownImage]):
    """The rows of ``digests.csv``."""

    __slots__ = ()

    row = KnownImage
    columns_of: ClassVar[dict[str, type[Column]]] = {
        "path": Paths,
        "digest": Texts,
        "label": Repeating,
        "split": Repeating,
    }


def images_of(splits: Splits) -> KnownImages:
    """List all images of the splits, in the order of the splits; reads the files that have not been read before."""
    return KnownImages.of(_images_of(splits))


def _images_of(splits: Splits) -> Iterator[KnownImage]:
    for split, samples in (("train", splits.train), ("val", splits.val)):
        for sample in samples:
            yield KnownImage(sample.path, splits.digests.of(sample), sample.label, split)
    for row, digest in zip(splits.test.listing(), splits.test.digests(), strict=True):
        yield KnownImage(row["path"], digest, row["label"], "test")


def write_images(folder: Path, images: Sequence[KnownImage]) -> None:
    """Write ``digests.csv`` atomically and durably: a run cannot be resumed without it."""
    whole = replaced_whole(folder / FILE, durable=True, only_writer=True)
    with whole as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(KnownImage._fields)
        writer.writerows(images)


def read_images(folder: Path) -> KnownImages:
    """Read ``digests.csv``.

    Raises:
        CheckpointError: when the folder has no such file.
    """
    if not (folder / FILE).is_file():
        raise CheckpointError(
            f"{folder / FILE}, which lists the images that the run began with, is missing. Put it back, or start a new "
            "run."
        )
    with (folder / FILE).open(newline="", encoding="utf-8") as file:
        return KnownImages.of(
            KnownImage(row["path"], row["digest"], row.get("label", ""), row.get("split", ""))
            for row in csv.DictReader(file)
        )


def as_they_were(assigned: SampleTable, known: Sequence[KnownImage], digests: ContentDigests) -> SampleTable:
    """Give the samples the order and the splits that they had when the run began, even if files were renamed.

    Order and splits follow from the paths, so both can change when files are moved or renamed.

    Args:
        assigned: the samples as they are now, each with its split.
        known: the images that the run began with.
        digests: computes the hash of an image's content.

    Returns:
        The samples in the order and splits of ``known``; ``assigned`` unchanged if images or labels differ.
    """
    ordered = SampleTable.joined([assigned.of_splits(split) for split in SPLITS])
    if len(ordered) == len(known) and all(
        (sample.path, sample.split) == (image.path, image.split) for sample, image in zip(ordered, known, strict=True)
    ):
        return assigned
    found: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for row, sample in enumerate(assigned):
        found[digests.of(sample), sample.label].append(row)
    if Counter({key: len(rows) for key, rows in found.items()}) != Counter(
        (image.digest, image.label) for image in known
    ):
        return assigned
    rows = [found[image.digest, image.label].popleft() for image in known]
    return assigned.take(rows).replaced(split=[image.split for image in known])


def changed_images(before: Sequence[KnownImage], now: Sequence[KnownImage]) -> list[str]:
    """The paths of images whose content is not in both lists; for runs of ftexp 0.1.0 the paths must agree as well."""
    if any(not image.split for image in before):
        then = {image.path: image.digest for image in before}
        without_test = {image.path: image.digest for image in now if image.split != "test"}
        return sorted(path for path in then.keys() | without_test.keys() if then.get(path) != without_test.get(path))
    return sorted({*_without(before, now), *_without(now, before)})


def _without(images: Sequence[KnownImage], others: Sequence[KnownImage]) -> list[str]:
    left = Counter(image.digest for image in others)
    missing = []
    for image in images:
        left[image.digest] -= 1
        if left[image.digest] < 0:
            missing.append(image.path)
    return missing
