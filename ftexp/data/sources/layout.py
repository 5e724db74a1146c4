"""Whether the folders at the top of a data set are its classes or its splits."""

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

_CLASSES = "data.layout=classes takes every folder directly under data.root for a class"


def find_splits(root: str, top: Mapping[str, Folder]) -> dict[str, Folder]:
    """Tell splits from classes by the names of the folders at the top and by what lies in them.

    A folder with the name of a split that holds images, not classes, is a class of that name (cars, buses, trains).

    Args:
        top: the folders directly under ``root`` that may hold images, by name.

    Returns:
        train, val and test -> the folder that holds its classes, as far as there are any; empty: the folders are
        classes.

    Raises:
        DataError: where they could be either, naming what was found and the ways out.
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
            f"data.root={root} holds {listed(top)}: {listed(with_classes)} has the name of a split and holds folders,"
            f" but there is no train/ with the same. Put the training images into train/CLASS. Or, if all of them"
            f" are classes: {_CLASSES}."
        )
    _refuse_same_insides(root, top)
    return {}


def classes_in(folder: Folder) -> list[str]:
    """The names of its folders that hold an image, at any depth."""
    return [name for name in folder.folders if not folder.is_loop(name) and holds_images(folder.open(name))]


def holds_images(folder: Folder) -> bool:
    """Whether there is an image in it or anywhere below it, outside of runs."""
    return any(one.images for _, one in folders_below(folder) if not one.is_run)


def _in_order(top: Mapping[str, Folder], named: Mapping[str, str]) -> dict[str, Folder]:
    name_of = {split: name for name, split in named.items()}
    if any(split != name for split, name in name_of.items()):
        meanings = ", ".join(f"{name_of[split]} is {split}" for split in SPLITS if split in name_of)
        log.info("data    the folders are splits: %s", meanings)
    return {split: _class_level(top[name_of[split]]) for split in SPLITS if split in name_of}


def _class_level(folder: Folder) -> Folder:
    """The folder that holds the classes: one further down where an archive was unpacked into a folder of its name."""
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
                f"data.root={root} holds {train}/ with folders in it, so its folders are splits, but {name!r} is none"
                f" of {', '.join(SPLITS)}.{hint} Rename it or move it away. Or, if all of them are classes: {_CLASSES}."
            )
    if unknown:
        log.warning("Folders beside the splits hold no images and are not used: %s.", listed(unknown))


def _refuse_detection(path: str, folders: Mapping[str, Folder]) -> None:
    """Boxes or masks beside images, as for YOLO and Pascal VOC: ``images`` and ``labels`` are no classes."""
    names = {name.casefold(): name for name in folders}
    images = next((names[name] for name in ("images", "jpegimages") if name in names), None)
    labels = next((names[name] for name in ("labels", "annotations") if name in names), None)
    if images and labels and holds_images(folders[images]) and not holds_images(folders[labels]):
        raise DataError(
            f"{path} holds {images}/ and {labels}/, as data sets for object detection do, and no folders of classes. A"
            " run tells which class a whole image has: put the images into one folder per class, or list each with its"
            " class in a table (data=manifest data.file=FILE)."
        )


def table_hint(*folders: str) -> str:
    """A table in one of these folders, which may hold the labels, as a hint."""
    for folder in folders:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".csv", ".tsv", ".parquet")))
        names = [name for name in names if "submission" not in name.lower()]
        names.sort(key=lambda name: "train" not in name.lower())
        if names:
            return f" If {names[0]} holds the labels: data=manifest data.file={os.path.join(folder, names[0])}."
    return ""


def _refuse_twice(root: str, named: Mapping[str, str]) -> None:
    for split in SPLITS:
        names = [name for name, meant in named.items() if meant == split]
        if len(names) > 1:
            raise DataError(
                f"data.root={root} holds {listed(names)}, and each is a usual name of the {split} split. Which one is"
                f" meant? Rename or move the others away, or put their images together."
            )


def _refuse_splits_without_train(root: str, named: Mapping[str, str]) -> None:
    train = [name for name, split in named.items() if split == "train"]
    lacks = f"{train[0]}/ holds no folders with images, so there are no classes" if train else "there is no train/"
    hint = table_hint(root, *(os.path.join(root, name) for name in train))
    raise DataError(
        f"data.root={root} holds {listed(named)}: these are names of splits, but {lacks}. Put the images into one"
        f" folder per class below each.{hint} Or, if they are classes: {_CLASSES}."
    )


def _refuse_same_insides(root: str, top: Mapping[str, Folder]) -> None:
    """Splits, years or folds by any name: what lies in them has the same names, which are the classes then."""
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
                f"data.root={root} holds a single folder, {os.path.relpath(folder.path, root)}, with the folders"
                f" {listed(folder.folders)} in it. If those are the classes or the splits, set data.root={folder.path}."
            )
        return
    common = frozenset.intersection(*insides.values())
    everything = frozenset.union(*insides.values())
    if len(everything) > 1 and 2 * len(common) > len(everything):
        raise DataError(
            f"data.root={root} holds {listed(top)}, and each of them holds the same folders: {listed(sorted(common))}."
            " Are they splits or classes? If they are splits, rename them to train, val and test, or put them together."
            f" If they are classes: {_CLASSES}."
        )


def _plain_names(names: Sequence[str]) -> frozenset[str]:
    return frozenset(unicodedata.normalize("NFC", name).casefold() for name in names)
