"""Tensors kept on disk between phases, trials and runs, under names that say all they depend on.

A file appears whole or not at all, is written row by row as the rows come, is read through a memory map, and goes when
newer ones need its place.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import torch
from filelock import FileLock
from torch import Tensor

log = logging.getLogger(__name__)

ROWS = "rows"
# A safetensors file: the length of a JSON header, the header (here padded to a page), the tensors one after the other.
_HEADER_BYTES = 4096
_DTYPES = {
    "U8": torch.uint8,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# An unfinished file that nobody has written to for so long was left by a crash.
_ABANDONED_SECONDS = 3600

Append = Callable[[Tensor], None]
# Hands over the rows part by part, and returns small tensors to keep beside them.
Fill = Callable[[Append], Mapping[str, Tensor]]


class StoreFullError(RuntimeError):
    """More bytes than the store may take."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a store has under a key.

    Attributes:
        rows: all parts, along the first dimension; on the CPU, mapped from the file where there is one.
        notes: the small tensors beside them.
        found: whether they were there before.
    """

    rows: Tensor
    notes: Mapping[str, Tensor]
    found: bool = False
    _map: mmap.mmap | None = field(default=None, repr=False)

    def release(self) -> None:
        """Give the memory of the pages read so far back; they stay in the file, and come again when read again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Unfinished(Protocol):
    """What is being computed for a key; nothing of it is kept without ``finish``."""

    def append(self, rows: Tensor) -> None:
        """Add rows [n, ...], all of one shape and dtype.

        Raises:
            StoreFullError: when they take more than the limit.
        """

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Keep the rows, and small tensors beside them."""


class TensorStore:
    """A folder of tensors by key, the least recently used of which make room for new ones.

    Args:
        folder: made when it is first needed; None: nothing is kept.
        limit_gib: most that all files together may take.
    """

    def __init__(self, folder: Path | None, limit_gib: float) -> None:
        self.folder = folder
        self.limit_bytes = int(limit_gib * 2**30)

    def get(self, key: str, fill: Fill) -> Kept:
        """What is kept under a key, computed by the first who asks while all others wait.

        Raises:
            StoreFullError: when it alone takes more than the limit.
        """
        with self.place(key) as place:
            return place if isinstance(place, Kept) else place.finish(fill(place.append))

    @contextmanager
    def place(self, key: str) -> Iterator[Kept | Unfinished]:
        """What is kept under a key, or the place for it; all others who ask for it wait until the ``with`` ends."""
        if self.folder is None:
            yield _InMemory()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(key)
        with FileLock(self.folder / f"{key}.lock"):
            if (kept := _read(file)) is not None:
                os.utime(file)  # used just now
                yield kept
                return
            unfinished = file.with_suffix(".tmp")
            try:
                with unfinished.open("wb") as stream:
                    yield _Writer(stream, file, lambda num_bytes: self._make_room(num_bytes, unfinished))
            finally:
                unfinished.unlink(missing_ok=True)

    def holds(self, key: str) -> bool:
        """Whether something is kept under a key."""
        return self.folder is not None and self._file(key).exists()

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
        used = _HEADER_BYTES + sum(size for _, size, _ in ages)
        for _, size, file in sorted(ages):
            if used + num_bytes <= self.limit_bytes:
                return
            used -= size
            file.unlink(missing_ok=True)  # who has it mapped keeps it


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


class _Writer:
    """Writes the parts of a file in turn; the header, which needs the number of rows, comes last."""

    def __init__(self, stream: BinaryIO, file: Path, make_room: Callable[[int], None]) -> None:
        self._stream = stream
        self._file = file
        self._make_room = make_room
        self._num_rows = 0
        self._first: Tensor | None = None
        self._num_bytes = 0
        stream.seek(_HEADER_BYTES)

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        if self._first is None:
            self._first = rows[:1]
        self._num_rows += len(rows)
        self._put(rows)

    def finish(self, notes: Mapping[str, Tensor]) -> Kept:
        """Add the notes and the header, and give the file its name."""
        assert self._first is not None, "no rows"
        shape = [self._num_rows, *self._first.shape[1:]]
        header = {ROWS: _entry(self._first.dtype, shape, 0, self._num_bytes)}
        for name, note in notes.items():
            start = self._num_bytes
            self._put(note)
            header[name] = _entry(note.dtype, list(note.shape), start, self._num_bytes)
        length = _HEADER_BYTES - 8
        text = json.dumps(header).encode().ljust(length)
        assert len(text) == length
        self._stream.seek(0)
        self._stream.write(length.to_bytes(8, "little") + text)
        self._stream.flush()
        os.replace(self._stream.name, self._file)
        return _map(self._file, found=False)

    def _put(self, tensor: Tensor) -> None:
        self._num_bytes += tensor.nbytes
        self._make_room(self._num_bytes)
        self._stream.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _entry(dtype: torch.dtype, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}


def _read(file: Path) -> Kept | None:
    """A kept file through a memory map; None when it is not there, or damaged."""
    if not file.exists():
        return None
    try:
        return _map(file, found=True)
    except (ValueError, KeyError, OSError) as error:
        log.warning("cache   %s is damaged (%s); what it held is computed anew.", file, type(error).__name__)
        file.unlink(missing_ok=True)
        return None


def _map(file: Path, *, found: bool) -> Kept:
    with file.open("rb") as stream:
        # A private map: torch wants memory that could be written to, and nothing ever reaches the file.
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    header = json.loads(memory[8:_HEADER_BYTES])
    end = _HEADER_BYTES + max(entry["data_offsets"][1] for entry in header.values())
    if end != len(memory):
        raise ValueError(f"{len(memory)} bytes, where {end} are expected")
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        flat = torch.frombuffer(
            memory, dtype=dtype, count=(stop - start) // dtype.itemsize, offset=_HEADER_BYTES + start
        )
        # What is small is read at once.
        tensors[name] = flat.view(entry["shape"]) if name == ROWS else flat.view(entry["shape"]).clone()
    return Kept(tensors.pop(ROWS), tensors, found, memory)
