"""What is not used of a data set, counted and said in a line each."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ftexp.data.samples import Sample, sorted_naturally
from ftexp.data.sources.folders import Folder
from ftexp.errors import DataError, listed

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LeftOut:
    """Collects while folders are read.

    Attributes:
        runs: folders of ftexp, Hydra and MLflow.
        repeated: links to folders that are read by another path, or that lead back to a folder above.
    """

    runs: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    _others: list[str] = field(default_factory=list)
    _special: list[str] = field(default_factory=list)
    _unlabelled: list[str] = field(default_factory=list)

    def count(self, folder: Folder) -> int:
        """Note the entries of a class's folder that are no images; returns how many."""
        self._others += folder.paths(folder.others)
        self._special += folder.paths(folder.special)
        return len(folder.others) + len(folder.special)

    def loose(self, folder: Folder) -> None:
        """Note the images that lie beside the folders of classes."""
        self._unlabelled += folder.paths(folder.images)

    def split_without_classes(self, folder: Folder, split: str) -> None:
        """Say that a folder of a split holds no classes."""
        images = folder.paths(folder.images)
        if images:
            log.warning(
                "%s holds %d images but no folders of classes: without labels they are not used, and the data has no %s"
                " split.",
                folder.path,
                len(images),
                split,
            )
        else:
            log.warning("%s holds no images: the data has no %s split.", folder.path, split)

    def say(self) -> None:
        """One line for each kind."""
        if self.runs:
            log.warning("Folders of ftexp's or Hydra's runs are no data and are not read: %s.", listed(self.runs, 5))
        if self._unlabelled:
            log.warning(
                "%d images lie beside the folders of classes, have no label and are not used, %s for one.",
                len(self._unlabelled),
                self._unlabelled[0],
            )
        if self._others:
            kinds = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in self._others)
            log.warning(
                "%d files in the folders of classes are no images and are not used (%s), %r for one.",
                len(self._others),
                listed([f"{count} x {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])], 8),
                self._others[0],
            )
        if self._special:
            log.warning("%d pipes, sockets or devices are not read, %r for one.", len(self._special), self._special[0])
        if self.repeated:
            log.warning(
                "%d linked folders lead to a folder that is read already and are not read twice, %s for one.",
                len(self.repeated),
                self.repeated[0],
            )


def check_losses(samples: Sequence[Sample], bad: Sequence[tuple[Sample, str]]) -> None:
    """Name every class that loses all or more than half of its images to ``data.on_bad_image=skip``.

    Args:
        bad: samples and the reasons why they are left out.

    Raises:
        DataError: when nothing is left, or a file may not be read, which says nothing about the image.
    """
    forbidden = [sample.path for sample, reason in bad if "permission denied" in reason.lower()]
    if forbidden:
        raise DataError(
            f"{len(forbidden)} files may not be read (permission denied), {forbidden[0]} for one. Make them readable,"
            " or move them away: data.on_bad_image=skip leaves out broken images only."
        )
    if bad and len(bad) == len(samples):
        raise DataError(f"All {len(bad)} images are bad, so nothing is left. For one, {bad[0][0].path}: {bad[0][1]}.")
    total = Counter(sample.label for sample in samples)
    lost = Counter(sample.label for sample, _ in bad)
    example = {sample.label: f"{sample.path}: {reason}" for sample, reason in reversed(bad)}
    for label in sorted_naturally(label for label in lost if 2 * lost[label] > total[label]):
        if lost[label] == total[label]:
            log.warning(
                "CLASS %r IS LOST: all of its %d images are bad, so this run does not know it. For one, %s.",
                label,
                total[label],
                example[label],
            )
        else:
            log.warning(
                "Class %r loses %d of its %d images. For one, %s.", label, lost[label], total[label], example[label]
            )
