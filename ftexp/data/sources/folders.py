"""Lists folders and sorts their entries into images, subfolders and other files. Links are followed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.program_folders import is_mark, is_written_by_a_program
from ftexp.errors import DataError

# Device and inode: the same for a folder and every link to it.
Identity = tuple[int, int]

# Suffixes of images that Pillow decodes, and of images that it cannot decode, which are reported as bad images.
_SUFFIXES = """
    apng avif avifs bmp cur dcx dds dib eps fit fits gif icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo msp
    pbm pcd pcx pfm pgm png pnm ppm psd pxr qoi ras rgb rgba sgi tga tif tiff webp xbm xpm
    heic heics heif heifs hif jxl exr hdr dcm dng cr2 cr3 nef nrw arw orf rw2 raf pef srw 3fr iiq
"""
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
# (offset, bytes) at the beginning of images, for files whose name has no suffix of an image.
_SIGNATURES = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF8"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (8, b"WEBP"),
    (8, b"JFIF"),
    (4, b"ftypheic"),
    (4, b"ftypmif1"),
    (4, b"ftypavif"),
    (4, b"jP  \r\n\x87\n"),
)
# What file browsers, archives and servers leave behind; it is ignored like hidden files.
CLUTTER_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
CLUTTER_FOLDERS = frozenset(("__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information"))
SERVER_FOLDERS = frozenset(("@eadir", "@recycle", "#recycle", "#snapshot"))
CLUTTER = CLUTTER_FILES | CLUTTER_FOLDERS | SERVER_FOLDERS

CHECKPOINTS = "checkpoints"


@dataclass(slots=True)
class Folder:
    """The names of the entries of one folder, sorted. Hidden entries and clutter are ignored.

    Attributes:
        path: the path of the folder.
        above: the identities of the folder and its parents; a link to one of them is a loop.
        is_run: whether a program wrote the folder, such as a run of ftexp; its images are not data.
        folders: the subfolders, in natural order.
        linked: those of ``folders`` that are links.
        images: files with the suffix or the first bytes of an image, and broken links with such a suffix.
        others: regular files that are not images.
        special: pipes, sockets and devices, which are never read.
    """

    path: str
    above: frozenset[Identity]
    is_run: bool = False
    folders: list[str] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    _opened: dict[str, Folder] = field(default_factory=dict, repr=False)

    def open(self, name: str) -> Folder:
        """List a subfolder; the listing is remembered."""
        if name not in self._opened:
            path = self.join(name)
            self._opened[name] = _list(path, self.above | {identity_of(path)})
        return self._opened[name]

    def is_loop(self, name: str) -> bool:
        """Whether a subfolder is a link to this folder or to one of its parents."""
        return name in self.linked and identity_of(self.join(name)) in self.above

    def paths(self, names: list[str]) -> list[str]:
        """The paths of the entries with these names."""
        return [self.join(name) for name in names]

    def join(self, name: str) -> str:
        """The path of an entry; in the working folder it is the name alone, without ``./``."""
        return name if self.path == "." else os.path.join(self.path, name)


def open_root(path: str) -> Folder:
    """List the folder at the top. If a run was started in it, the folder of its checkpoints is left out.

    Raises:
        DataError: when the folder is not readable, or a link in it is broken.
    """
    top = Path(path).resolve()
    root = _list(path, frozenset(identity_of(str(folder)) for folder in (top, *top.parents)))
    if root.is_run and CHECKPOINTS in root.folders and not root.open(CHECKPOINTS).images:
        root.folders.remove(CHECKPOINTS)
    return root


def folders_below(folder: Folder, repeated: list[str] | None = None) -> Iterator[tuple[Identity, Folder]]:
    """Yield a folder and all folders below it, each once and with its identity, but no folders inside runs.

    Links are followed last, so that a folder that also has a path of its own is listed under that path.

    Args:
        folder: the folder at the top.
        repeated: receives the paths of folders that were skipped because they had been visited by another path.
    """
    seen = set[Identity]()
    own, linked = deque([(folder, "")]), deque[tuple[Folder, str]]()
    while own or linked:
        parent, name = (own or linked).popleft()
        identity = identity_of(parent.join(name) or ".")
        if identity in seen or (name and parent.is_loop(name)):
            if repeated is not None:
                repeated.append(parent.join(name))
            continue
        seen.add(identity)
        one = parent.open(name) if name else folder
        yield identity, one
        if not one.is_run:
            for inner in one.folders:
                (linked if inner in one.linked else own).append((one, inner))


def _list(path: str, above: frozenset[Identity]) -> Folder:
    """Sort the entries of one folder. Subfolders are not listed, and a file is opened only if its suffix is unknown."""
    folder = Folder(path, above)
    marks = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_mark(entry.name):
                    marks.append(entry.name)
                if entry.name[0] != "." and entry.name.lower() not in CLUTTER:
                    _sort_entry(folder, entry)
    except OSError as error:
        raise _cannot_list(path, error) from error
    folder.is_run = is_written_by_a_program(path, marks)
    folder.folders = sorted_naturally(folder.folders)
    folder.images.sort()
    folder.others.sort()
    return folder


def identity_of(path: str) -> Identity:
    """The identity of a folder, or of the folder that a link points to.

    Raises:
        DataError: when the folder is not accessible.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _cannot_list(path, error) from error
    return status.st_dev, status.st_ino


def _sort_entry(folder: Folder, entry: os.DirEntry[str]) -> None:
    # For anything but a link these need no system call, because the listing has the type; a link costs one stat.
    try:
        if entry.is_dir():
            folder.folders.append(entry.name)
            if entry.is_symlink():
                folder.linked.add(entry.name)
        elif entry.is_file():
            (folder.images if _is_image(entry) else folder.others).append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise FileNotFoundError
        else:
            folder.special.append(entry.name)
    except PermissionError:
        raise
    except OSError as error:  # a link to nothing, or to itself
        if not has_image_suffix(entry.name):
            raise DataError(
                f"{entry.path} is a broken link (to {os.readlink(entry.path)}). Repair or remove it."
            ) from error
        folder.images.append(entry.name)


def has_image_suffix(name: str) -> bool:
    """Whether a file name has the suffix of an image, in upper or lower case."""
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _is_image(entry: os.DirEntry[str]) -> bool:
    if has_image_suffix(entry.name):
        return True
    try:
        with open(entry.path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    return any(start[at : at + len(signature)] == signature for at, signature in _SIGNATURES)


def _cannot_list(path: str, error: OSError) -> DataError:
    # For a link into a folder without permission, the file name in the error is that of the link.
    return DataError(f"{error.filename or path} cannot be read: {error.strerror}. Make it readable, or move it away.")
