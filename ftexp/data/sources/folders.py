"""What lies in a folder, sorted into images and all else: one listing for each folder, links followed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.written_images import MARK
from ftexp.errors import DataError

# Device and inode: the same for a folder and every link to it.
Identity = tuple[int, int]

# What Pillow decodes, and what is an image that it cannot decode: such a file is named as a bad image.
_SUFFIXES = """
    apng avif avifs bmp cur dcx dds dib eps fit fits gif icns ico im j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo msp
    pbm pcd pcx pfm pgm png pnm ppm psd pxr qoi ras rgb rgba sgi tga tif tiff webp xbm xpm
    heic heics heif heifs hif jxl exr hdr dcm dng cr2 cr3 nef nrw arw orf rw2 raf pef srw 3fr iiq
"""
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())
# First bytes of images whose name does not say what they are: (where, what).
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
# What file browsers, archives and servers leave behind; no more a class or an image than a hidden file.
CLUTTER_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
CLUTTER_FOLDERS = frozenset(("__macosx", "__pycache__", "lost+found", "$recycle.bin", "system volume information"))
SERVER_FOLDERS = frozenset(("@eadir", "@recycle", "#recycle", "#snapshot"))
CLUTTER = CLUTTER_FILES | CLUTTER_FOLDERS | SERVER_FOLDERS
# A folder that holds one of these was written by ftexp or by Hydra.
RUN_MARKS = frozenset(("run.json", "sweep.json", ".hydra", "ftexp.log", MARK))

CHECKPOINTS = "checkpoints"


@dataclass(slots=True)
class Folder:
    """One folder's own entries, by name and in natural order; hidden ones and clutter are passed over.

    Attributes:
        above: the folder itself and those it lies in; a link to one of them is a loop.
        is_run: written by a run of ftexp, Hydra or MLflow; its pictures are no data.
        linked: those of ``folders`` that are links.
        images: regular files with the suffix or the first bytes of an image, and broken links with such a suffix.
        others: regular files that are no images.
        special: pipes, sockets and devices; they are not read.
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
        """List one of its folders, once."""
        if name not in self._opened:
            path = self.join(name)
            self._opened[name] = _list(path, self.above | {identity_of(path)})
        return self._opened[name]

    def is_loop(self, name: str) -> bool:
        """Whether one of its folders is a link to itself or to one that it lies in."""
        return name in self.linked and identity_of(self.join(name)) in self.above

    def paths(self, names: list[str]) -> list[str]:
        """Of entries by these names."""
        return [self.join(name) for name in names]

    def join(self, name: str) -> str:
        """The path of one of its entries; without ``./`` in the working folder."""
        return name if self.path == "." else os.path.join(self.path, name)


def open_root(path: str) -> Folder:
    """List the folder at the top; where a run was begun in it, without the folder of the run's checkpoints.

    Raises:
        DataError: when the folder may not be read, or a link in it leads nowhere.
    """
    top = Path(path).resolve()
    root = _list(path, frozenset(identity_of(str(folder)) for folder in (top, *top.parents)))
    if root.is_run and CHECKPOINTS in root.folders and not root.open(CHECKPOINTS).images:
        root.folders.remove(CHECKPOINTS)
    return root


def folders_below(folder: Folder, repeated: list[str] | None = None) -> Iterator[tuple[Identity, Folder]]:
    """It and all folders below it, each once and with its identity; runs among them too, but not what is below a run.

    Links are followed last, so that a folder goes by its own path where it has one here.

    Args:
        repeated: takes the paths that were not entered because they lead to a folder that was entered before.
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
    """Sort the entries of one folder; its subfolders are not looked into, and no file is opened that need not be."""
    folder = Folder(path, above)
    mlflow = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                folder.is_run = folder.is_run or entry.name in RUN_MARKS
                mlflow = mlflow or entry.name == "artifacts"
                if entry.name[0] != "." and entry.name.lower() not in CLUTTER:
                    _sort_entry(folder, entry)
    except OSError as error:
        raise _cannot_list(path, error) from error
    # Where MLflow keeps the files of a run, or of a model: the name is 32 hexadecimal digits.
    folder.is_run = folder.is_run or (mlflow and _is_hexadecimal(os.path.basename(path).removeprefix("m-")))
    folder.folders = sorted_naturally(folder.folders)
    folder.images.sort()
    folder.others.sort()
    return folder


def identity_of(path: str) -> Identity:
    """Of a folder, through links.

    Raises:
        DataError: when it may not be looked at.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _cannot_list(path, error) from error
    return status.st_dev, status.st_ino


def _sort_entry(folder: Folder, entry: os.DirEntry[str]) -> None:
    # For anything but a link these ask what the listing has said already; a link costs one stat.
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
                f"{entry.path} is a link that leads nowhere ({os.readlink(entry.path)}). Mend or remove it."
            ) from error
        folder.images.append(entry.name)


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends as an image's, in any case."""
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


def _is_hexadecimal(name: str) -> bool:
    return len(name) == 32 and all(digit in "0123456789abcdef" for digit in name)


def _cannot_list(path: str, error: OSError) -> DataError:
    # A link into a closed folder is named itself.
    return DataError(f"{error.filename or path} cannot be read: {error.strerror}. Make it readable, or move it away.")
