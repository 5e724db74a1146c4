"""Pictures in folders: one folder per class, in one place or under train, val and test."""

from __future__ import annotations

import os
from pathlib import Path

from ftexp.config import ImageFolderConfig
from ftexp.data.samples import Sample, is_one_line
from ftexp.data.sources.folders import Folder, Identity, folders_below, open_root
from ftexp.data.sources.layout import classes_in, find_splits, holds_images, table_hint
from ftexp.data.sources.left_out import LeftOut
from ftexp.errors import DataError, listed

_LAYOUT = "Give a folder with one folder of images per class, or with train/ and val/ that hold the classes."


def read_imagefolder(config: ImageFolderConfig) -> list[Sample]:
    """List ``root/CLASS/...`` or ``root/train/CLASS/...``, ``root/val/CLASS/...``, ``root/test/CLASS/...``.

    Every image in a class's folder is listed, at any depth and through links; what is left out is said, but for
    hidden files and folders. Splits go by their usual names, in any case.

    Raises:
        DataError: when the folder is missing, holds no classes or no images, could be read in two ways, or holds a
            folder that may not be read or a link that leads nowhere.
    """
    root = config.root
    top = Path(root).expanduser()
    if not top.is_dir():
        what = "is a file, not a folder" if top.exists() else "does not exist"
        raise DataError(f"data.root={root} {what} (looked for {top.absolute()}). {_LAYOUT}")
    left_out = LeftOut()
    listing = open_root(str(top))
    folders = _folders_of_images(listing, left_out)
    if not folders:
        left_out.say()
        hint = table_hint(str(top)) if listing.images else ""
        raise DataError(f"data.root={root} holds no folders{_loose(listing)}, so there are no classes. {_LAYOUT}{hint}")
    left_out.loose(listing)
    splits = find_splits(root, folders) if config.layout == "auto" else {}
    reader = _ClassReader(left_out)
    if splits:
        for split, folder in splits.items():
            reader.read_split(folder, split)
    else:
        for name, folder in folders.items():
            reader.read_class(folder, name, None)
    reader.refuse_empty()
    left_out.say()
    return reader.samples


class _ClassReader:
    """Lists the images class by class.

    Attributes:
        samples: those listed so far.
    """

    def __init__(self, left_out: LeftOut) -> None:
        self.samples: list[Sample] = []
        self._left_out = left_out
        self._label_of: dict[Identity, tuple[str, str]] = {}
        self._empty: list[tuple[str, str, int]] = []

    def read_split(self, folder: Folder, split: str) -> None:
        """All classes of one split; one without classes is said and left out."""
        if not classes_in(folder):
            self._left_out.split_without_classes(folder, split)
            return
        self._left_out.loose(folder)
        for name, inner in _folders_of_images(folder, self._left_out).items():
            self.read_class(inner, name, split)

    def read_class(self, folder: Folder, label: str, split: str | None) -> None:
        """All images of one class.

        Raises:
            DataError: when a name would break the lines of tables, or a folder has two classes.
        """
        paths: list[str] = []
        below = 0
        for identity, one in folders_below(folder, self._left_out.repeated):
            if one.is_run:
                self._left_out.runs.append(one.path)
                continue
            if one.images:
                self._refuse_two_classes(identity, one, label)
            paths += one.paths(one.images)
            below += self._left_out.count(one)
        if not paths:
            self._empty.append((folder.path, label, below))
        paths.sort()
        for path in paths:
            if not is_one_line(path):
                raise DataError(f"{path!r}: the name of a class or file has characters that do not print. Rename it.")
            self.samples.append(Sample(path=path, label=label, split=split))

    def refuse_empty(self) -> None:
        """Refuse folders of classes without an image, all of them at once.

        Raises:
            DataError: naming them.
        """
        if not self._empty:
            return
        path, label, below = self._empty[0]
        if len(self._empty) > 1:
            names = listed([path for path, _, _ in self._empty], 10)
            raise DataError(
                f"{len(self._empty)} folders hold no images, and each would be a class: {names}. Put the images of"
                " these classes there, or remove the folders."
            )
        files = f"no images among its {below} files" if below else "no files"
        raise DataError(f"{path} holds {files}: put the images of class {label!r} there or remove it.")

    def _refuse_two_classes(self, identity: Identity, folder: Folder, label: str) -> None:
        other, path = self._label_of.setdefault(identity, (label, folder.path))
        if other != label:
            raise DataError(
                f"{path} and {folder.path} are the same folder, by a link, so its images would be of class {other!r}"
                f" and of class {label!r}. Remove one of the two."
            )


def _folders_of_images(folder: Folder, left_out: LeftOut) -> dict[str, Folder]:
    """Its folders by name, without loops and without those that hold nothing but runs of ftexp or Hydra."""
    kept = {}
    for name in folder.folders:
        if folder.is_loop(name):
            left_out.repeated += folder.paths([name])
            continue
        inner = folder.open(name)
        if not inner.is_run and (holds_images(inner) or not _holds_runs(inner)):
            kept[name] = inner
        else:
            left_out.runs.append(inner.path)
    return kept


def _holds_runs(folder: Folder) -> bool:
    return any(one.is_run for _, one in folders_below(folder))


def _loose(folder: Folder) -> str:
    return f" but {len(folder.images)} images, {os.path.basename(folder.images[0])} for one" if folder.images else ""
