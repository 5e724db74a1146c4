"""Reports what is left out of a dataset, with one warning for each kind."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass, field

from ftexp.data.sources.folders import Folder
from ftexp.errors import listed

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LeftOut:
    """Collects what is left out while folders are read.

    Attributes:
        runs: folders that programs wrote, such as runs of ftexp, Hydra or MLflow.
        repeated: links to folders that are read by another path, and links to a parent folder.
    """

    runs: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    _others: list[str] = field(default_factory=list)
    _special: list[str] = field(default_factory=list)
    _unlabelled: list[str] = field(default_factory=list)

    def count(self, folder: Folder) -> int:
        """Note the entries in the folder of a class that are not images; returns their number."""
        self._others += folder.paths(folder.others)
        self._special += folder.paths(folder.special)
        return len(folder.others) + len(folder.special)

    def kinds(self) -> str:
        """The suffixes of the files that are not images, with their numbers; empty if there are none."""
        kinds = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in self._others)
        return listed([f"{count} x {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])], 8)

    def loose(self, folder: Folder) -> None:
        """Note the images beside the folders of the classes, which have no label."""
        self._unlabelled += folder.paths(folder.images)

    def split_without_classes(self, folder: Folder, split: str) -> None:
        """Warn that the folder of a split contains no classes."""
        images = folder.paths(folder.images)
        if images:
            log.warning(
                "%s contains %d images but no folders of classes: without labels they are not used, and the data has no"
                " %s split.",
                folder.path,
                len(images),
                split,
            )
        else:
            log.warning("%s contains no images: the data has no %s split.", folder.path, split)

    def say(self) -> None:
        """Log one warning for each kind."""
        if self.runs:
            log.warning(
                "Folders that programs wrote (runs, environments of Python) are not read as data: %s.",
                listed(self.runs, 5),
            )
        if self._unlabelled:
            log.warning(
                "%d images beside the folders of classes have no label and are not used, for example %s.",
                len(self._unlabelled),
                self._unlabelled[0],
            )
        if self._others:
            log.warning(
                "%d files in the folders of classes are not images and are not used (%s), for example %r.",
                len(self._others),
                self.kinds(),
                self._others[0],
            )
        if self._special:
            example = self._special[0]
            log.warning("%d pipes, sockets or devices are not read, for example %r.", len(self._special), example)
        if self.repeated:
            log.warning(
                "%d links to folders that are read already are not followed, for example %s.",
                len(self.repeated),
                self.repeated[0],
            )
