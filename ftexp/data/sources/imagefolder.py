"""Images in folders: one folder per class, directly under the root or under train, val and test."""

from __future__ import annotations

import os
from pathlib import Path

from ftexp.config import ImageFolderConfig
from ftexp.data.samples import Sample, SampleTable, is_one_line
from ftexp.data.sources.folders import Folder, Identity, folders_below, open_root
from ftexp.data.sources.layout import classes_in, find_splits, holds_images, table_hint
from ftexp.data.sources.left_out import LeftOut
from ftexp.errors import DataError, listed

_LAYOUT = "Give a folder with one folder of images per class, or with train/ and val/ that contain the classes."


def read_imagefolder(config: ImageFolderConfig) -> SampleTable:
    """List ``root/CLASS/...`` or ``root/train/CLASS/...``, ``root/val/CLASS/...``, ``root/test/CLASS/...``.

    Every image in the folder of a class is listed, at any depth and through links. Warnings name what is left out,
    except for hidden files and folders. Splits are recognised by their usual names, in upper or lower case.

    Raises:
        DataError: when the folder is missing, contains no classes or no images, has an ambiguous layout, or contains
            a folder that is not readable or a broken link.
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
        raise DataError(
            f"data.root={root} contains no folders{_loose(listing)}, so there are no classes. {_LAYOUT}{hint}"
        )
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
    return SampleTable.joined(reader.classes)


class _ClassReader:
    """Lists the images class by class.

    Attributes:
        classes: the samples of each class listed so far, if it has any.
    """

    def __init__(self, left_out: LeftOut) -> None:
        self.classes: list[SampleTable] = []
        self._left_out = left_out
        self._label_of: dict[Identity, tuple[str, str]] = {}
        self._empty: list[tuple[str, str, int]] = []

    def read_split(self, folder: Folder, split: str) -> None:
        """List all classes of one split; a split without classes is left out with a warning."""
        if not classes_in(folder):
            self._left_out.split_without_classes(folder, split)
            return
        self._left_out.loose(folder)
        for name, inner in _folders_of_images(folder, self._left_out).items():
            self.read_class(inner, name, split)

    def read_class(self, folder: Folder, label: str, split: str | None) -> None:
        """List all images of one class.

        Args:
            folder: the folder of the class.
            label: the name of the class.
            split: the split that the folder is in; None without splits.

        Raises:
            DataError: when a name has unprintable characters, or a folder belongs to two classes.
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
                raise DataError(f"{path!r}: the name of a class or file has unprintable characters. Rename it.")
        self.classes.append(SampleTable.of(Sample(path=path, label=label, split=split) for path in paths))

    def refuse_empty(self) -> None:
        """Refuse classes whose folders contain no image.

        Raises:
            DataError: naming all of these folders.
        """
        if not self._empty:
            return
        path, label, below = self._empty[0]
        kinds = f" The folders of classes have other files: {self._left_out.kinds()}." if self._left_out.kinds() else ""
        if len(self._empty) > 1:
            names = listed([path for path, _, _ in self._empty], 10)
            raise DataError(
                f"{len(self._empty)} folders contain no images, and each would be a class: {names}. Put the images of"
                f" these classes into them, or remove them.{kinds}"
            )
        files = f"no images among its {below} files" if below else "no files"
        raise DataError(f"{path} contains {files}. Put the images of class {label!r} into it, or remove it.{kinds}")

    def _refuse_two_classes(self, identity: Identity, folder: Folder, label: str) -> None:
        other, path = self._label_of.setdefault(identity, (label, folder.path))
        if other != label:
            raise DataError(
                f"{path} and {folder.path} are the same folder, by a link, so its images would belong to class"
                f" {other!r} and to class {label!r}. Remove one of the two."
            )


def _folders_of_images(folder: Folder, left_out: LeftOut) -> dict[str, Folder]:
    """The subfolders by name, without loops and without folders that contain only runs of ftexp or Hydra."""
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
    example = os.path.basename(folder.images[0]) if folder.images else ""
    return f" but {len(folder.images)} images, for example {example}" if folder.images else ""
