"""The cache of tensors on disk, for later phases, trials and runs; a key identifies everything that they depend on.

Files are written atomically, and the least recently used ones are removed to make room. If the folder cannot be used,
there is a warning and nothing is cached.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import torch
from filelock import FileLock
from torch import Tensor

from ftexp.data.loading.tensor_file import HEADER_BYTES, Kept, TensorWriter, read_tensors

log = logging.getLogger(__name__)

# An unfinished file that has not changed for this time was left by a crash.
_ABANDONED_SECONDS = 3600
# A key; files with other names are not of this store, and are neither counted nor removed.
_KEY = re.compile(r"[0-9a-f]{32}")
# Room is made for a file that grows by this part of the limit.
ROOM_STEPS = 256
# Folders that this process could not use -> the reason; they are reported once and not tried again.
_unusable: dict[Path, str] = {}

Append = Callable[[Tensor], None]
# Appends the rows part by part, and returns small tensors to keep with them.
Fill = Callable[[Append], Mapping[str, Tensor]]


class StoreError(RuntimeError):
    """Tensors cannot be kept; the message is the reason. The caller can continue without the cache."""


class StoreFullError(StoreError):
    """The tensors are larger than the limit of the store."""


class Unfinished(Protocol):
    """The tensors that are being computed for a key; they are kept only after ``finish``."""

    def append(self, rows: Tensor) -> None:
        """Add rows [n, ...], all of one shape and dtype.

        Raises:
            StoreError: when they exceed the limit of the store, or cannot be written.
        """

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Keep the rows, and small tensors with them.

        Raises:
            StoreError: when they cannot be written.
        """


class TensorStore:
    """A folder of tensors by key, from which the least recently used ones are removed to make room for new ones.

    Args:
        folder: is created when it is first needed; None: tensors stay in memory and are not kept.
        limit_gib: the largest size of all files of the store together, in GiB.
    """

    def __init__(self, folder: Path | None, limit_gib: float) -> None:
        self.folder = folder.absolute() if folder else None
        self.limit_bytes = int(limit_gib * 2**30)

    def get(self, key: str, fill: Fill) -> Kept:
        """Get the tensors of a key. If there are none, one process computes them while all others wait.

        Args:
            key: identifies everything that the tensors depend on: a digest of 32 hexadecimal digits.
            fill: computes the tensors.

        Raises:
            StoreError: when the tensors cannot be kept.
        """
        with self.place(key) as place:
            return place if isinstance(place, Kept) else place.finish(fill(place.append))

    @contextmanager
    def place(self, key: str) -> Iterator[Kept | Unfinished]:
        """Get the tensors of a key, or an ``Unfinished`` to write them to; others wait until the ``with`` ends."""
        if self.folder is None:
            yield _InMemory()
            return
        with ExitStack() as held:
            try:
                place = self._open(key, self.folder, held)
            except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
                place = _Refused(_give_up(self.folder, error))
            yield place

    def _open(self, key: str, folder: Path, held: ExitStack) -> Kept | Unfinished:
        if folder in _unusable:
            return _Refused(_unusable[folder])
        folder.mkdir(parents=True, exist_ok=True)
        file = self._file(key)
        held.enter_context(FileLock(folder / f"{key}.lock"))
        if (kept := _read(file, key)) is not None:
            with suppress(OSError):  # the folder is read-only
                os.utime(file)  # marks it as recently used
            return kept
        unfinished = file.with_suffix(".tmp")
        held.callback(_remove, unfinished)
        stream = held.enter_context(unfinished.open("wb", buffering=0))
        writer, step = TensorWriter(stream, key), self.limit_bytes // ROOM_STEPS
        return _OnDisk(writer, file, lambda num_bytes: self._make_room(num_bytes, unfinished), step)

    def holds(self, key: str) -> bool:
        """Whether the store has tensors under a key."""
        return self.folder is not None and self.folder not in _unusable and self._file(key).exists()

    def remove(self, key: str) -> None:
        """Remove the tensors of a key, which are not needed any more."""
        if self.folder is not None:
            for file in (self._file(key), self.folder / f"{key}.lock"):
                _remove(file)

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"

    def _make_room(self, num_bytes: int, unfinished: Path) -> None:
        """Remove the oldest files until ``num_bytes`` of the unfinished file fit into the limit."""
        assert self.folder is not None
        if num_bytes > self.limit_bytes:
            raise StoreFullError(f"more than the {self.limit_bytes / 2**30:.1f} GiB of runtime.cache_gib")
        ages: list[tuple[float, int, Path]] = []
        for file in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.tmp")):
            if not _KEY.fullmatch(file.stem):
                continue
            try:
                state = file.stat()
            except FileNotFoundError:  # another process removed it
                continue
            in_work = file.suffix == ".tmp" and time.time() - state.st_mtime < _ABANDONED_SECONDS
            if file != unfinished and not in_work:
                ages.append((state.st_mtime, state.st_size, file))
        used = HEADER_BYTES + sum(size for _, size, _ in ages)
        for _, size, file in sorted(ages):
            if used + num_bytes <= self.limit_bytes:
                return
            used -= size
            file.unlink(missing_ok=True)  # processes that have mapped it can still read it


class _Refused:
    """Refuses tensors that cannot be kept."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def append(self, rows: Tensor) -> None:
        """Refuse the rows."""
        raise StoreError(self._reason)

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Refuse the tensors."""
        raise StoreError(self._reason)


class _InMemory:
    """Collects tensors in memory, for a store without a folder."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        self._parts.append(rows.cpu())

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Concatenate the rows."""
        return Kept(torch.cat(self._parts), notes)


class _OnDisk:
    """Writes a temporary file, and renames it when it is complete."""

    def __init__(self, writer: TensorWriter, file: Path, make_room: Callable[[int], None], step: int) -> None:
        self._writer = writer
        self._file = file
        self._make_room = make_room
        self._step = step  # bytes after which there is room to be made again: that looks at every file of the folder
        self._had_room_for = 0

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        with self._explained():
            size = self._writer.num_bytes + rows.nbytes
            if size >= self._had_room_for + self._step:
                self._make_room(size)
                self._had_room_for = size
            self._writer.append(rows)

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Write the notes, and rename the file."""
        with self._explained():
            self._make_room(self._writer.num_bytes + sum(note.nbytes for note in notes.values()))
            return self._writer.finish(notes, self._file)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(_give_up(self._file.parent, error)) from error


def _give_up(folder: Path, error: Exception) -> str:
    """Stop using a folder, warn of it once, and return the reason."""
    if folder not in _unusable:
        _unusable[folder] = f"{folder} cannot be used ({error})"
        log.warning(
            "cache   off: %s. Free some space, or set another folder with runtime.cache_folder=FOLDER; "
            "runtime.cache=memory and runtime.pixels=off need no folder.",
            _unusable[folder],
        )
    return _unusable[folder]


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _read(file: Path, key: str) -> Kept | None:
    """Read a file of the store; None if it is missing, damaged, has another key, or is of an earlier ftexp."""
    if not file.exists():
        return None
    try:
        return read_tensors(file, key)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        log.warning("cache   %s is damaged (%s); its content is computed again.", file, type(error).__name__)
        file.unlink(missing_ok=True)
        return None
