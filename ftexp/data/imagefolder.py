"""Pictures in folders: one folder per class, in one place or under train, val and test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ftexp.data.samples import SPLITS, Sample, sorted_naturally
from ftexp.errors import DataError, nearest

# What file browsers leave behind; no more an image than a hidden file.
CLUTTER = frozenset({"Thumbs.db", "desktop.ini"})


def read_imagefolder(root: str) -> list[Sample]:
    """List ``root/CLASS/...`` or ``root/train/CLASS/...``, ``root/val/CLASS/...``, ``root/test/CLASS/...``.

    Every file in a class's folder is taken for an image, at any depth; hidden files and folders are passed over.

    Raises:
        DataError: when the folder is missing or holds no classes or no images.
    """
    top = Path(root).expanduser()
    if not top.is_dir():
        what = "is a file, not a folder" if top.exists() else "does not exist"
        raise DataError(f"data.root={root} {what} (looked for {top.absolute()}). {_LAYOUT}")
    folders = _visible_folders(top)
    if not folders:
        raise DataError(f"data.root={root} holds no folders, so there are no classes. {_LAYOUT}")
    # A folder "train" that holds images instead of classes is a class of that name (cars, buses, trains).
    if "train" in folders and _visible_folders(top / "train"):
        _refuse_unknown_splits(root, folders)
        samples = [sample for split in SPLITS if split in folders for sample in _read_classes(top / split, split)]
    else:
        samples = list(_read_classes(top, None))
    if not samples:
        raise DataError(f"data.root={root} holds folders but no files in them. {_LAYOUT}")
    return samples


_LAYOUT = "Give a folder with one folder of images per class, or with train/ and val/ that hold the classes."


def _refuse_unknown_splits(root: str, folders: list[str]) -> None:
    for name in folders:
        if name not in SPLITS:
            raise DataError(
                f"data.root={root} holds train/, so its folders are splits, but {name!r} is none of"
                f" {', '.join(SPLITS)}.{nearest(name, SPLITS)} Rename it or move it away."
            )


def _read_classes(folder: Path, split: str | None) -> Iterator[Sample]:
    for label in _visible_folders(folder):
        files = sorted(_visible_files(folder / label))
        if not files:
            raise DataError(f"{folder / label} holds no files: put the images of class {label!r} there or remove it.")
        for path in files:
            if not str(path).isprintable():  # they would break lines, tables and terminals
                raise DataError(
                    f"{str(path)!r}: the name of a class or file has characters that do not print. Rename it."
                )
            yield Sample(path=str(path), label=label, split=split)


def _visible_folders(folder: Path) -> list[str]:
    return sorted_naturally(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def _visible_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != "." and name not in CLUTTER:
                yield Path(parent, name)
