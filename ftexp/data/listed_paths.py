"""The files that the paths of a table mean."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

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


def _what_is_wrong(kind: str, path: str, full: str, root: Path) -> str:
    if kind == "folder":
        return f"{shorten(full, 200)} is a folder; list the images in it one by one."
    if kind == "special":
        return f"{shorten(full, 200)} is no regular file but a pipe, a socket or a device."
    if re.match(r"[a-zA-Z]:[\\/]|\\\\", path):
        return f"{shorten(path)} is a path of another, a Windows machine. List paths that start from data.root={root}."
    hint = " It is there from the working folder: set data.root=." if os.path.isfile(path) else ""
    return f"there is no file {shorten(full, 200)} (paths start from data.root={root}).{hint}"
