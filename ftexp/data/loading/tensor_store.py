"""Tensors kept on disk between phases, trials and runs, under names that say all they depend on.

A file appears whole or not at all, and goes when newer ones need its place. A folder that cannot be used is a warning.
"""

from __future__ import annotations

import logging
import os
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

# An unfinished file that nobody has written to for so long was left by a crash.
_ABANDONED_SECONDS = 3600
# Folders that could not be used, by this process: said once, and not tried again.
_unusable: dict[Path, str] = {}

Append = Callable[[Tensor], None]
# Hands over the rows part by part, and returns small tensors to keep beside them.
Fill = Callable[[Append], Mapping[str, Tensor]]


class StoreError(RuntimeError):
    """What is computed cannot be kept, for a reason that is the message; everything works without it."""


class StoreFullError(StoreError):
    """More bytes than the store may take."""


class Unfinished(Protocol):
    """What is being computed for a key; nothing of it is kept without ``finish``."""

    def append(self, rows: Tensor) -> None:
        """Add rows [n, ...], all of one shape and dtype.

        Raises:
            StoreError: when they take more than the limit, or cannot be written.
        """

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Keep the rows, and small tensors beside them.

        Raises:
            StoreError: when they cannot be written.
        """


class TensorStore:
    """A folder of tensors by key, the least recently used of which make room for new ones.

    Args:
        folder: made when it is first needed; None: nothing is kept.
        limit_gib: most that all files together may take.
    """

    def __init__(self, folder: Path | None, limit_gib: float) -> None:
        self.folder = folder.absolute() if folder else None
        self.limit_bytes = int(limit_gib * 2**30)

    def get(self, key: str, fill: Fill) -> Kept:
        """What is kept under a key, computed by the first who asks while all others wait.

        Raises:
            StoreError: when it cannot be kept.
        """
        with self.place(key) as place:
            return place if isinstance(place, Kept) else place.finish(fill(place.append))

    @contextmanager
    def place(self, key: str) -> Iterator[Kept | Unfinished]:
        """What is kept under a key, or the place for it; all others who ask for it wait until the ``with`` ends."""
        if self.folder is None:
            yield _InMemory()
            return
        with ExitStack() as held:
            try:
                place = self._open(key, self.folder, held)
            except (OSError, NotImplementedError) as error:  # the latter: a file system that has no locks
                place = _Nowhere(_give_up(self.folder, error))
            yield place

    def _open(self, key: str, folder: Path, held: ExitStack) -> Kept | Unfinished:
        if folder in _unusable:
            return _Nowhere(_unusable[folder])
        folder.mkdir(parents=True, exist_ok=True)
        file = self._file(key)
        held.enter_context(FileLock(folder / f"{key}.lock"))
        if (kept := _read(file, key)) is not None:
            with suppress(OSError):  # a folder that may only be read
                os.utime(file)  # used just now
            return kept
        unfinished = file.with_suffix(".tmp")
        held.callback(_remove, unfinished)
        stream = held.enter_context(unfinished.open("wb", buffering=0))
        return _OnDisk(TensorWriter(stream, key), file, lambda num_bytes: self._make_room(num_bytes, unfinished))

    def holds(self, key: str) -> bool:
        """Whether something is kept under a key."""
        return self.folder is not None and self.folder not in _unusable and self._file(key).exists()

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"

    def _make_room(self, num_bytes: int, unfinished: Path) -> None:
        """Let the oldest files go until ``num_bytes`` of the unfinished one fit beside the others."""
        assert self.folder is not None
        if num_bytes > self.limit_bytes:
            raise StoreFullError(f"more than the {self.limit_bytes / 2**30:.1f} GiB of runtime.cache_gib")
        ages: list[tuple[float, int, Path]] = []
        for file in (*self.folder.glob("*.safetensors"), *self.folder.glob("*.tmp")):
            try:
                state = file.stat()
            except FileNotFoundError:  # another process let it go
                continue
            in_work = file.suffix == ".tmp" and time.time() - state.st_mtime < _ABANDONED_SECONDS
            if file != unfinished and not in_work:
                ages.append((state.st_mtime, state.st_size, file))
        used = HEADER_BYTES + sum(size for _, size, _ in ages)
        for _, size, file in sorted(ages):
            if used + num_bytes <= self.limit_bytes:
                return
            used -= size
            file.unlink(missing_ok=True)  # who has it mapped keeps it


class _Nowhere:
    """The place for what cannot be kept."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def append(self, rows: Tensor) -> None:
        """Refuse them."""
        raise StoreError(self._reason)

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Refuse them."""
        raise StoreError(self._reason)


class _InMemory:
    """Parts that stay where they are, for as long as they are used."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        self._parts.append(rows.cpu())

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Put them together."""
        return Kept(torch.cat(self._parts), notes)


class _OnDisk:
    """A file that is written and, when it is whole, gets its name."""

    def __init__(self, writer: TensorWriter, file: Path, make_room: Callable[[int], None]) -> None:
        self._writer = writer
        self._file = file
        self._make_room = make_room

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        with self._explained():
            self._make_room(self._writer.num_bytes + rows.nbytes)
            self._writer.append(rows)

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Give the file its name."""
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
    """Use a folder no more, and say so once; returns why."""
    if folder not in _unusable:
        _unusable[folder] = f"{folder} cannot be used ({error})"
        log.warning(
            "cache   off: %s. Make room, or name another folder with runtime.cache_folder=FOLDER; runtime.cache=memory "
            "and runtime.pixels=off need none.",
            _unusable[folder],
        )
    return _unusable[folder]


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _read(file: Path, key: str) -> Kept | None:
    """A kept file through a memory map; None when it is not there, damaged, another's, or of an older ftexp."""
    if not file.exists():
        return None
    try:
        return read_tensors(file, key)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        log.warning("cache   %s is damaged (%s); what it held is computed anew.", file, type(error).__name__)
        file.unlink(missing_ok=True)
        return None
