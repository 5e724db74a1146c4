"""One file of tensors: written row by row as the rows come, read through a memory map, checked when it is opened.

It is a safetensors file: the length of a JSON header, the header (here padded to a page), the tensors one after the
other.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

ROWS = "rows"
# What safetensors sets aside for facts beside the tensors; here the key and a checksum of all tensors.
METADATA = "__metadata__"
HEADER_BYTES = 4096
_DTYPES = {
    "U8": torch.uint8,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Bytes that a checksum is taken of at once: their pages are given back before the next ones are read.
_CHECKED_AT_ONCE = 2**26


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
        if self._map is not None:
            _give_back(self._map)


class TensorWriter:
    """Writes the parts of a file in turn; the header, which needs the number of rows, comes last.

    Args:
        stream: without a buffer, which would fail for a second time when the file is closed.
        key: stands in the file, and has to be given again to read it.
    """

    def __init__(self, stream: FileIO, key: str) -> None:
        self._stream = stream
        self._key = key
        self._num_rows = 0
        self._first: Tensor | None = None
        self._checksum = 0
        # Of all tensors so far.
        self.num_bytes = 0

    def append(self, rows: Tensor) -> None:
        """Add rows."""
        if self._first is None:
            self._first = rows[:1]
        self._num_rows += len(rows)
        self._put(rows)

    def finish(self, notes: Mapping[str, Tensor], file: Path) -> Kept:
        """Add the notes and the header, and give the file its name."""
        assert self._first is not None, "no rows"
        shape = [self._num_rows, *self._first.shape[1:]]
        header: dict[str, object] = {ROWS: _entry(self._first.dtype, shape, 0, self.num_bytes)}
        for name, note in notes.items():
            start = self.num_bytes
            self._put(note)
            header[name] = _entry(note.dtype, list(note.shape), start, self.num_bytes)
        header[METADATA] = {"key": self._key, "crc32": str(self._checksum)}
        length = HEADER_BYTES - 8
        text = json.dumps(header).encode().ljust(length)
        assert len(text) == length
        self._write(0, length.to_bytes(8, "little") + text)
        os.replace(self._stream.name, file)
        kept = read_tensors(file)
        assert kept is not None
        return kept

    def _put(self, tensor: Tensor) -> None:
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        self._write(HEADER_BYTES + self.num_bytes, content)
        self.num_bytes += tensor.nbytes
        self._checksum = zlib.crc32(content, self._checksum)

    def _write(self, start: int, content: bytes | memoryview) -> None:
        self._stream.seek(start)
        rest = memoryview(content)
        while rest:
            rest = rest[self._stream.write(rest) or 0 :]


def _entry(dtype: torch.dtype, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}


def read_tensors(file: Path, key: str | None = None) -> Kept | None:
    """What a file holds; None when an older ftexp wrote it, without a checksum.

    Args:
        key: that it was kept under before, which is checked as its content is; None: it has just been written.

    Raises:
        OSError: when it cannot be read.
        Exception: ValueError, KeyError, TypeError, AttributeError or RuntimeError, when it is damaged.
    """
    with file.open("rb") as stream:
        # A private map: torch wants memory that could be written to, and nothing ever reaches the file.
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    header = json.loads(memory[8:HEADER_BYTES])
    metadata = header.pop(METADATA, None)
    if metadata is None:
        return None
    end = HEADER_BYTES + max(entry["data_offsets"][1] for entry in header.values())
    if end != len(memory):
        raise ValueError(f"{len(memory)} bytes, where {end} are expected")
    if key is not None and metadata != {"key": key, "crc32": str(_checksum_of(memory))}:
        raise ValueError("it is not what was written under this name")
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = _DTYPES[entry["dtype"]]
        flat = torch.frombuffer(
            memory, dtype=dtype, count=(stop - start) // dtype.itemsize, offset=HEADER_BYTES + start
        )
        # What is small is read at once.
        tensors[name] = flat.view(entry["shape"]) if name == ROWS else flat.view(entry["shape"]).clone()
    return Kept(tensors.pop(ROWS), tensors, key is not None, memory)


def _checksum_of(memory: mmap.mmap) -> int:
    checksum = 0
    with memoryview(memory) as content:
        for start in range(HEADER_BYTES, len(content), _CHECKED_AT_ONCE):
            with content[start : start + _CHECKED_AT_ONCE] as part:
                checksum = zlib.crc32(part, checksum)
            _give_back(memory)
    return checksum


def _give_back(memory: mmap.mmap) -> None:
    """The pages read so far; they stay in the file, and come again when read again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)
