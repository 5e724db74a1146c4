"""Where the bytes of an image are: in a file, in a part of a file, at a URL, or in memory."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ftexp.data.remote import UnreadableError, is_url, read_url, state_of_url

# Of the times of files, the coarsest step: FAT's, 2 s.
TIME_STEP_NS = 2 * 10**9


class FileState(NamedTuple):
    """What changes when the bytes of an image change.

    Attributes:
        facts: equal as long as the bytes are.
        changed_ns: when the file was changed last, in nanoseconds since 1970; 0 for files that are not on this machine.
    """

    facts: tuple[object, ...]
    changed_ns: int


def local_state(path: str) -> FileState:
    """The state of a file of this machine.

    Raises:
        OSError: when there is no such file.
    """
    return _state(os.stat(path))


def _state(of: os.stat_result) -> FileState:
    # Without the number of the device, which each machine that mounts a file system chooses itself.
    facts = (of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns)
    return FileState(facts, max(of.st_mtime_ns, of.st_ctime_ns))


class Place(ABC):
    """Where the bytes of one image are. Places are small, and are sent to the processes that load images."""

    __slots__ = ()

    @abstractmethod
    def read(self) -> bytes:
        """The bytes of the image.

        Raises:
            OSError: when they cannot be read; ``why_unreadable`` explains it.
        """

    @abstractmethod
    def state(self) -> FileState:
        """The state of the file that has the bytes; raises as ``read`` does."""

    def num_bytes(self) -> int | None:
        """The number of bytes; None if it is not known before they are read. Raises as ``read`` does."""
        return None

    def copy_to(self, file: str) -> None:
        """Write the image to a file of this machine, with the times of its own file if that is on this machine."""
        Path(file).write_bytes(self.read())

    def link_to(self, file: str) -> None:
        """Make a hard link to the file that is the image.

        Raises:
            OSError: when there is no such file, or the file system has no links to it.
        """
        raise OSError("the image has no file of its own on this machine")

    def is_copied_in(self, file: str) -> bool:
        """Whether a file is what ``copy_to`` or ``link_to`` makes; raises as ``read`` does."""
        return Path(file).read_bytes() == self.read()


@dataclass(frozen=True, slots=True)
class LocalFile(Place):
    """A file of this machine that is one image."""

    path: str

    def read(self) -> bytes:
        """Read the file."""
        return Path(self.path).read_bytes()

    def state(self) -> FileState:
        """By its inode, size and times."""
        return local_state(self.path)

    def num_bytes(self) -> int:
        """By the file system."""
        return os.stat(self.path).st_size

    def copy_to(self, file: str) -> None:
        """Copy the file."""
        shutil.copy2(self.path, file)

    def link_to(self, file: str) -> None:
        """Link the file itself, if the path is a symbolic link to it."""
        os.link(os.path.realpath(self.path), file)

    def is_copied_in(self, file: str) -> bool:
        """By its inode, or by its time and its content."""
        image, there = os.stat(self.path), os.stat(file)
        if os.path.samestat(image, there):
            return True
        same_time = abs(image.st_mtime_ns - there.st_mtime_ns) < TIME_STEP_NS
        return image.st_size == there.st_size and same_time and filecmp.cmp(self.path, file, shallow=False)


@dataclass(frozen=True, slots=True)
class Container:
    """A file with many images, such as a tar, as it was when they were listed.

    Attributes:
        path: a path of this machine, or a URL.
        state: what changes when the file changes; of a URL it is asked once, when the images are listed.
    """

    path: str
    state: str

    @classmethod
    def of(cls, path: str) -> Container:
        """A file as it is now.

        Raises:
            OSError: when it cannot be read.
        """
        return cls(path, state_of_url(path) if is_url(path) else _without_renames(os.stat(path)))

    def check(self, now: os.stat_result) -> None:
        """Refuse a local file that has been changed since its images were listed.

        Raises:
            UnreadableError: if it has.
        """
        if _without_renames(now) != self.state:
            raise UnreadableError(f"{self.path} has been changed since its images were listed; start again")

    def file_state(self, *more: object) -> FileState:
        """The state of a part of the file, which ``more`` names."""
        if is_url(self.path):
            return FileState((self.state, *more), 0)
        state = local_state(self.path)
        return FileState((*state.facts, *more), state.changed_ns)


def _without_renames(of: os.stat_result) -> str:
    """The state by which a change of the content is seen, but not one of its name, owner or permissions."""
    return f"{of.st_ino} {of.st_size} {of.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Part(Place):
    """Some bytes of a file, such as a member of a tar that is not compressed."""

    container: Container
    offset: int
    size: int

    def read(self) -> bytes:
        """Read these bytes alone."""
        path, end = self.container.path, self.offset + self.size
        if is_url(path):
            content = read_url(path, self.offset, end)
        else:
            with open(path, "rb") as file:
                self.container.check(os.fstat(file.fileno()))
                file.seek(self.offset)
                content = file.read(self.size)
        if len(content) != self.size:
            raise UnreadableError(f"{path} ends before it; copy or download that file again")
        return content

    def state(self) -> FileState:
        """That of the file, with the part of it."""
        return self.container.file_state(self.offset, self.size)

    def num_bytes(self) -> int:
        """Known from the list."""
        return self.size


@dataclass(frozen=True, slots=True)
class WholeUrl(Place):
    """A file at a URL that is one image."""

    url: str

    def read(self) -> bytes:
        """Download it."""
        return read_url(self.url)

    def state(self) -> FileState:
        """Taken as the same as long as this process lives, since every look at it is a request."""
        return FileState((self.url,), 0)


@dataclass(frozen=True, slots=True)
class InMemory(Place):
    """The bytes themselves."""

    content: bytes

    def read(self) -> bytes:
        """They are here."""
        return self.content

    def state(self) -> FileState:
        """By a digest of them."""
        return FileState((hashlib.blake2b(self.content, digest_size=16).digest(),), 0)

    def num_bytes(self) -> int:
        """Their number."""
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Nowhere(Place):
    """The place of an image that is named and not there."""

    reason: str

    def read(self) -> bytes:
        """Say why it is not there."""
        raise UnreadableError(self.reason)

    def state(self) -> FileState:
        """As ``read``."""
        raise UnreadableError(self.reason)


def place_of(path: str) -> Place:
    """The place of an image that is a file of its own: of this machine, or at a URL."""
    return WholeUrl(path) if is_url(path) else LocalFile(path)
