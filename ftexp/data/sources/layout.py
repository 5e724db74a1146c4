"""Decides whether the folders at the top of a dataset are its classes or its splits."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Mapping, Sequence

from ftexp.data.samples import SPLITS
from ftexp.data.sources.folders import Folder, folders_below
from ftexp.data.sources.split_names import split_of, splits_of
from ftexp.errors import DataError, listed, nearest

log = logging.getLogger(__name__)

_CLASSES = "data.layout=classes makes every folder directly under data.root a class"


def find_splits(root: str, top: Mapping[str, Folder]) -> dict[str, Folder]:
    """Decide by the names and the content of the folders at the top whether they are splits or classes.

    A folder that has the name of a split but contains images instead of folders is a class (cars, buses, trains).

    Args:
        root: ``data.root``, for messages.
        top: name -> folder, for the folders directly under ``root`` that can contain images.

    Returns:
        Split -> the folder that contains its classes, for the splits that exist. Empty when the folders are classes.

    Raises:
        DataError: when the layout is ambiguous, naming what was found and how to resolve it.
    """
    split_for = splits_of(top)
    named = {name: split for name, split in split_for.items() if split is not None}
    with_classes = {name: split for name, split in named.items() if classes_in(top[name])}
    _refuse_detection(root, top)
    for name in with_classes:
        _refuse_detection(top[name].path, {inner: top[name].open(inner) for inner in top[name].folders})
    if "train" in with_classes.values():
        _refuse_twice(root, named)
        _refuse_unknown(root, top, named)
        return _in_order(top, named)
    if named and not any(holds_images(folder) for name, folder in top.items() if name not in named):
        _refuse_splits_without_train(root, named)
    if with_classes:
        raise DataError(
            f"data.root={root} contains {listed(top)}: {listed(with_classes)} has the name of a split and contains"
            f" folders, but there is no train/ with such folders. Put the training images into train/CLASS. Or, if all"
            f" of them are classes: {_CLASSES}."
        )
    _refuse_same_insides(root, top)
    return {}


def classes_in(folder: Folder) -> list[str]:
    """The names of the subfolders that contain an image, at any depth."""
    return [name for name in folder.folders if not folder.is_loop(name) and holds_images(folder.open(name))]


def holds_images(folder: Folder) -> bool:
    """Whether the folder contains an image at any depth, outside of runs."""
    return any(one.images for _, one in folders_below(folder) if not one.is_run)


def _in_order(top: Mapping[str, Folder], named: Mapping[str, str]) -> dict[str, Folder]:
    name_of = {split: name for name, split in named.items()}
    if any(split != name for split, name in name_of.items()):
        meanings = ", ".join(f"{name_of[split]} is {split}" for split in SPLITS if split in name_of)
        log.info("data    the folders are splits: %s", meanings)
    return {split: _class_level(top[name_of[split]]) for split in SPLITS if split in name_of}


def _class_level(folder: Folder) -> Folder:
    """The folder that contains the classes: a subfolder if an archive was unpacked into a folder of its own name."""
    while len(folder.folders) == 1 and not folder.images and _repeats(folder):
        folder = folder.open(folder.folders[0])
    return folder


def _repeats(folder: Folder) -> bool:
    inner = folder.folders[0]
    return inner.casefold() == os.path.basename(folder.path).casefold() or split_of(inner) is not None


def _refuse_unknown(root: str, top: Mapping[str, Folder], named: Mapping[str, str]) -> None:
    train = next(name for name, split in named.items() if split == "train")
    unknown = [name for name in top if name not in named]
    for name in unknown:
        if holds_images(top[name]):
            hint = nearest(name, SPLITS, at_least=0.6)
            raise DataError(
                f"data.root={root} contains {train}/ with folders in it, so its folders are splits, but {name!r} is not"
                f" one of {', '.join(SPLITS)}.{hint} Rename or move it. Or, if all of them are classes: {_CLASSES}."
            )
    if unknown:
        log.warning("Folders beside the splits contain no images and are not used: %s.", listed(unknown))


def _refuse_detection(path: str, folders: Mapping[str, Folder]) -> None:
    """Refuse ``images`` beside ``labels`` (boxes or masks), as in the layouts of YOLO and Pascal VOC."""
    names = {name.casefold(): name for name in folders}
    images = next((names[name] for name in ("images", "jpegimages") if name in names), None)
    labels = next((names[name] for name in ("labels", "annotations") if name in names), None)
    if images and labels and holds_images(folders[images]) and not holds_images(folders[labels]):
        raise DataError(
            f"{path} contains {images}/ and {labels}/, like a dataset for object detection, and no folders of classes."
            " ftexp classifies whole images: put the images into one folder per class, or list each with its class in a"
            " table (data=manifest data.file=FILE)."
        )


def table_hint(*folders: str) -> str:
    """A hint that names a table in one of these folders, if there is one, because it may contain the labels."""
    for folder in folders:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".csv", ".tsv", ".parquet")))
        names = [name for name in names if "submission" not in name.lower()]
        names.sort(key=lambda name: "train" not in name.lower())
        if names:
            return f" If {names[0]} contains the labels: data=manifest data.file={os.path.join(folder, names[0])}."
    return ""


def _refuse_twice(root: str, named: Mapping[str, str]) -> None:
    for split in SPLITS:
        names = [name for name, meant in named.items() if meant == split]
        if len(names) > 1:
            raise DataError(
                f"data.root={root} contains {listed(names)}, which are all usual names of the {split} split. Keep one"
                f" of them: rename or move the others, or merge them."
            )


def _refuse_splits_without_train(root: str, named: Mapping[str, str]) -> None:
    train = [name for name, split in named.items() if split == "train"]
    lacks = f"{train[0]}/ contains no folders with images, so there are no classes" if train else "there is no train/"
    hint = table_hint(root, *(os.path.join(root, name) for name in train))
    raise DataError(
        f"data.root={root} contains {listed(named)}: these are names of splits, but {lacks}. Put the images of each"
        f" split into one folder per class.{hint} Or, if they are classes: {_CLASSES}."
    )


def _refuse_same_insides(root: str, top: Mapping[str, Folder]) -> None:
    """Refuse folders that contain subfolders with the same names: they are splits, years or folds, and not classes."""
    insides = {name: _plain_names(folder.folders) for name, folder in top.items()}
    if any(folder.images for folder in top.values()) or not all(insides.values()):
        return
    if len(top) == 1:
        (folder,) = top.values()
        while len(folder.folders) == 1 and not folder.images and split_of(folder.folders[0]) is None:
            if folder.is_loop(folder.folders[0]):
                return
            folder = folder.open(folder.folders[0])
        if folder.folders and not folder.images:
            raise DataError(
                f"data.root={root} contains a single folder, {os.path.relpath(folder.path, root)}, with the folders"
                f" {listed(folder.folders)}. If these are the classes or the splits, set data.root={folder.path}."
            )
        return
    common = frozenset.intersection(*insides.values())
    everything = frozenset.union(*insides.values())
    if len(everything) > 1 and 2 * len(common) > len(everything):
        raise DataError(
            f"data.root={root} contains {listed(top)}, and each contains the same folders: {listed(sorted(common))}."
            f" If {listed(top)} are splits, rename them to train, val and test, or merge them."
            f" If they are classes: {_CLASSES}."
        )


def _plain_names(names: Sequence[str]) -> frozenset[str]:
    return frozenset(unicodedata.normalize("NFC", name).casefold() for name in names)
