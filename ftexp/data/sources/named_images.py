"""The images that a name stands for: a file, a folder, a glob, a tar or a Parquet file, a part of one, or a URL."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from ftexp.data.places import LocalFile, Nowhere, Place, place_of
from ftexp.data.remote import is_url
from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.folders import folders_below, open_root
from ftexp.data.sources.parts import Parts
from ftexp.data.sources.shard_names import find_urls
from ftexp.errors import DataError


def named_images(name: str, parts: Parts) -> Iterator[tuple[str, Place]]:
    """The path and the place of every image that a name stands for, in natural order.

    Args:
        name: the path or URL of an image, of a tar or a Parquet file (all images in it) or of a part of one; a folder
            of this machine (with all folders below it); a glob such as ``photos/*.jpg`` or ``s3://bucket/*.jpg``.
        parts: remembers the tars and Parquet files that have been listed.

    Raises:
        DataError: for a folder without images, a glob that matches nothing, and a tar or a Parquet file that cannot
            be listed or has no images.
    """
    path = name if is_url(name) else os.path.expanduser(name)
    for file in _files(path):
        if os.path.isdir(file):
            yield from ((image, LocalFile(image)) for image in _in_folder(file))
        else:
            yield from parts.images_in(file) or [named_image(file, parts)]


def named_image(path: str, parts: Parts) -> tuple[str, Place]:
    """The path and the place of a single image: a file, a part of a tar or of a Parquet file, or a URL.

    One that is not there has a place that says so when it is read.
    """
    try:
        return path, parts.find(path, path) or place_of(path)
    except DataError as error:
        return path, Nowhere(str(error).removeprefix(f"{path}: ").rstrip("."))


def _in_folder(path: str) -> Iterator[str]:
    found = False
    for _, folder in folders_below(open_root(path)):
        names = sorted_naturally(folder.images)
        folder.images, folder.others = [], []  # a folder stays known; of a million images, the names need not
        for name in names:
            found = True
            yield folder.join(name)
    if not found:
        raise DataError(f"{path} is a folder without images.")


def _files(path: str) -> list[str]:
    """The files and folders that a path, a URL or a glob stands for."""
    if is_url(path):
        matches = find_urls(path, path)
    elif glob.has_magic(path) and not os.path.exists(path):
        matches = sorted_naturally(glob.glob(path, recursive=True))
    else:
        matches = [path]
    if not matches:
        raise DataError(f"{path} matches no file.")
    return matches
