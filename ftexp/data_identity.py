"""The identity of a run's data: which images it has, with which labels, in which splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from ftexp.data.samples import sorted_naturally
from ftexp.data.splitting.splits import Splits
from ftexp.errors import DataError, listed
from ftexp.run_images import KnownImage, changed_images, images_of

MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class DataIdentity:
    """The images of a run, their labels, and the split of each image.

    Attributes:
        classes: the names of the classes, in the order of the network's outputs.
        data_digest: a hash of all images and labels.
        split_digest: a hash of which image is in which split.
        images: path, hash of the content, label and split of every image, which the two hashes stand for.
    """

    classes: list[str]
    data_digest: str
    split_digest: str
    images: Sequence[KnownImage] = field(repr=False, compare=False)

    @classmethod
    def of(cls, splits: Splits) -> DataIdentity:
        """Identify the splits as they are now; this reads the image files that the audit has not read."""
        images = images_of(splits)
        contents = sorted(f"{image.digest} {image.label}" for image in images if image.split != "test")
        digest = _digest([*contents, splits.test.content_digest()])
        del contents  # which are hundreds of MB if there are a million
        cut = sorted(f"{image.path} {image.split}" for image in images if image.split != "test")
        cut += sorted(f"{image.path} test" for image in images if image.split == "test")
        return cls(list(splits.classes), digest, _digest(cut), images)

    def check(self, now: DataIdentity) -> None:
        """Refuse to resume the run if the images, classes or splits have changed.

        Raises:
            DataError: naming what is different.
        """
        if now.classes != self.classes:
            changed = _changed_classes(self.classes, now.classes)
            raise DataError(
                f"The classes are not those the run began with: {changed}. Give the folders, the labels or the lines "
                "of data.classes their old names, or start a new run."
            )
        images = changed_images(self.images, now.images)
        if images:
            more = f" and {len(images) - MAX_NAMED} more" if len(images) > MAX_NAMED else ""
            raise DataError(
                f"{len(images)} images are not those the run began with: "
                f"{', '.join(images[:MAX_NAMED])}{more}. Put them back, or start a new run."
            )
        pairs = zip(self.images, now.images, strict=False)  # of the same number of images, since none has changed
        cut = any(one[1:] != other[1:] for one, other in pairs)
        if any(not image.split for image in self.images):  # of ftexp 0.1.0, which knew images by their paths
            cut = (now.data_digest, now.split_digest) != (self.data_digest, self.split_digest)
        if cut:
            raise DataError("Labels or splits are not those the run began with. Start a new run.")


def _changed_classes(before: Sequence[str], now: Sequence[str]) -> str:
    """What is different between two lists of classes, of which there can be thousands."""
    differences = {"gone": sorted_naturally(set(before) - set(now)), "new": sorted_naturally(set(now) - set(before))}
    named = [f"{what}: {listed(names, MAX_NAMED)}" for what, names in differences.items() if names]
    return "; ".join(named) or f"they are in another order, {listed(before, MAX_NAMED)} before"


def _digest(lines: list[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
