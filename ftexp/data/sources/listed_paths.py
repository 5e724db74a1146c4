"""The files that the paths of a table mean."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ftexp.data.sources.folders import has_image_suffix
from ftexp.errors import DataError, shorten


def find_listed(where: str, path: str, root: Path) -> str:
    """The regular file inside of ``root`` that a table's path means.

    Backslashes may stand for slashes, as Windows writes them, and Unicode may have either form.

    Raises:
        DataError: when the path leads out of the root, or there is no such file.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path):
        raise DataError(
            f"{where}: {shorten(path)} is an address, not a file. Download the images, and list their paths."
        )
    if re.match(r"[a-zA-Z]:[\\/]|\\\\", path):
        raise DataError(
            f"{where}: {shorten(path)} is a path on a Windows machine, not on this one. List paths that start from"
            f" data.root={root}."
        )
    full = _inside(where, path, root)
    kind = _kind(where, full, path)
    for other in _other_spellings(path):
        if kind == "gone":
            spelt = _inside(where, other, root)
            kind = _kind(where, spelt, path)
            full = full if kind == "gone" else spelt
    if kind != "file":
        raise DataError(f"{where}: {_what_is_wrong(kind, path, full, root)}")
    return full


def _inside(where: str, path: str, root: Path) -> str:
    # By name, not by what links point to: a link inside the root is its owner's decision, ".." is the table's.
    full = os.path.normpath(os.path.join(root, path))
    top = os.path.abspath(root)
    if os.path.commonpath((os.path.abspath(full), top)) != top:
        raise DataError(
            f"{where}: {shorten(path)} lies outside data.root={root}. Set data.root to a folder that holds all images."
        )
    return full


def _kind(where: str, full: str, path: str) -> str:
    """``file``, ``folder``, ``special`` (a pipe, socket or device) or ``gone``."""
    try:
        mode = os.stat(full).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError as error:  # a name too long for the file system, a folder that may not be entered
        raise DataError(f"{where}: {shorten(path)}: {error.strerror}.") from error
    except ValueError as error:  # a zero byte, or no real Unicode
        raise DataError(f"{where}: {shorten(path)}: {error}.") from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "special"


def _other_spellings(path: str) -> Iterator[str]:
    slashes = path.replace("\\", "/")
    for spelling in (path, slashes):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, spelling)


def _similar(full: str) -> str:
    """A file of that name but for its case, or for a suffix that the table leaves out, as a hint."""
    folder, name = os.path.split(full)
    try:
        files = sorted(os.listdir(folder))
    except OSError:
        return ""
    for file in files:
        if file.casefold() == name.casefold():
            return f" There is {shorten(file)}: write the name in the same case."
        if os.path.splitext(file)[0] == name and has_image_suffix(file):
            return f" There is {shorten(file)}: list the names with their suffix."
    return ""


def _what_is_wrong(kind: str, path: str, full: str, root: Path) -> str:
    if kind == "folder":
        return f"{shorten(full, 200)} is a folder; list the images in it one by one."
    if kind == "special":
        return f"{shorten(full, 200)} is no regular file but a pipe, a socket or a device."
    hint = " It is there from the working folder: set data.root=." if os.path.isfile(path) else _similar(full)
    return f"there is no file {shorten(full, 200)} (paths start from data.root={root}).{hint}"
