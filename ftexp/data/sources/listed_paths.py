"""Finds the files that the paths in a table mean."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ftexp.data.sources.folders import has_image_suffix
from ftexp.errors import DataError, shorten


def find_listed(where: str, path: str, root: Path) -> str:
    """Find the regular file inside ``root`` that a path in a table means.

    The path may have backslashes, as on Windows, and either form of Unicode (NFC or NFD).

    Args:
        where: the file and line of the table, for messages.
        path: the path in the table.
        root: the folder that relative paths start from.

    Raises:
        DataError: when the path is outside the root, or there is no such file.
    """
    if re.match(r"[a-zA-Z]:[\\/]|\\\\", path):
        raise DataError(
            f"{where}: {shorten(path)} is an absolute path of Windows. List paths that start from data.root={root}."
        )
    full = inside(where, path, root)
    kind = _kind(where, full, path)
    for other in _other_spellings(path) if kind == "gone" else ():
        if kind == "gone":
            spelt = inside(where, other, root)
            kind = _kind(where, spelt, path)
            full = full if kind == "gone" else spelt
    if kind != "file":
        raise DataError(f"{where}: {_what_is_wrong(kind, path, full, root)}")
    return full


def join_url(where: str, root: str, path: str) -> str:
    """The URL of a path that starts from a URL.

    Raises:
        DataError: when the path leads out of the root.
    """
    below = posixpath.normpath(path.replace("\\", "/"))
    if below.startswith(("/", "../")) or below in ("..", "."):
        raise DataError(f"{where}: {shorten(path)} is not inside data.root={root}.")
    return f"{root.rstrip('/')}/{below}"


def inside(where: str, path: str, root: Path) -> str:
    """The full path of a path in a table, which must not lead out of the root.

    Raises:
        DataError: when it does.
    """
    # Links are not resolved: the owner of the root may have put links into it, but a table must not lead out by "..".
    full = os.path.normpath(os.path.join(root, path))
    top, absolute = os.path.abspath(root), full if os.path.isabs(full) else os.path.abspath(full)
    if absolute != top and not absolute.startswith(os.path.join(top, "")):
        raise DataError(
            f"{where}: {shorten(path)} is outside data.root={root}. Set data.root to a folder that contains all images."
        )
    return full


def _kind(where: str, full: str, path: str) -> str:
    """``file``, ``folder``, ``special`` (a pipe, socket or device) or ``gone``."""
    try:
        mode = os.stat(full).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError as error:  # a name that is too long for the file system, or a missing permission
        raise DataError(f"{where}: {shorten(path)}: {error.strerror}.") from error
    except ValueError as error:  # a zero byte, or invalid Unicode
        raise DataError(f"{where}: {shorten(path)}: {error}.") from error
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "special"


def _other_spellings(path: str) -> Iterator[str]:
    slashes = path.replace("\\", "/")
    for spelling in (path, slashes):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, spelling)


def _similar(full: str) -> str:
    """A hint that names a file whose name differs only in case, or has a suffix that the table lacks."""
    folder, name = os.path.split(full)
    try:
        files = sorted(os.listdir(folder))
    except OSError:
        return ""
    for file in files:
        if file.casefold() == name.casefold():
            return f" There is {shorten(file)}: write the name with the same upper and lower case."
        if os.path.splitext(file)[0] == name and has_image_suffix(file):
            return f" There is {shorten(file)}: list the names with their suffix."
    return ""


def _what_is_wrong(kind: str, path: str, full: str, root: Path) -> str:
    if kind == "folder":
        return f"{shorten(full, 200)} is a folder; list the images in it one by one."
    if kind == "special":
        return f"{shorten(full, 200)} is not a regular file but a pipe, a socket or a device."
    hint = " The path is valid from the working folder: set data.root=." if os.path.isfile(path) else _similar(full)
    return f"there is no file {shorten(full, 200)} (paths start from data.root={root}).{hint}"
