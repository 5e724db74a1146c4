"""A file of tensors that is written row by row, read through a memory map, and verified when it is opened.

It is a safetensors file: the length of a JSON header, the header (here padded to a page), then the tensors.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

ROWS = "rows"
# The entry of safetensors for metadata; here it has the key and a checksum of all tensors.
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
# The number of bytes per step of a checksum; their memory is released before the next step.
_CHECKED_AT_ONCE = 2**26
# Of Linux; Python has it as mmap.MAP_NORESERVE since 3.13.
_MAP_NORESERVE = 0x4000


@dataclass(frozen=True, slots=True)
class Kept:
    """The tensors that a store keeps under a key.

    Attributes:
        rows: all rows [N, ...] on the CPU, mapped from the file if there is one.
        notes: name -> small tensor, for the tensors besides the rows.
        found: whether the tensors were read from an existing file, and not computed now.
    """

    rows: Tensor
    notes: Mapping[str, Tensor]
    found: bool = False
    _map: mmap.mmap | None = field(default=None, repr=False)

    def release(self) -> None:
        """Release the memory of the pages that were read; they are read from the file again when needed."""
        if self._map is not None:
            _give_back(self._map)


class TensorWriter:
    """Writes a file part by part; the header, which has the number of rows, is written last.

    Args:
        stream: an unbuffered file; after an error, a buffer would fail again when the file is closed.
        key: is written to the file, and is needed to read it.
    """

    def __init__(self, stream: FileIO, key: str) -> None:
        self._stream = stream
        self._key = key
        self._num_rows = 0
        self._first: Tensor | None = None
        self._checksum = 0
        # The size of all tensors written so far.
        self.num_bytes = 0

    def append(self, rows: Tensor) -> None:
        """Write rows [n, ...]."""
        if self._first is None:
            self._first = rows[:1]
        self._num_rows += len(rows)
        self._put(rows)

    def finish(self, notes: Mapping[str, Tensor], file: Path) -> Kept:
        """Write the notes and the header, and rename the file to its final name."""
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
    """Read the tensors in a file through a memory map.

    Args:
        file: the path of the file.
        key: the key of the file, which is verified together with the checksum; None: skip this for a new file.

    Returns:
        The tensors; None when an earlier version of ftexp wrote the file without a checksum.

    Raises:
        OSError: when the file cannot be read.
        Exception: ValueError, KeyError, TypeError, AttributeError or RuntimeError, when it is damaged.
    """
    memory = map_file(file)
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
        # Small tensors are read at once.
        tensors[name] = flat.view(entry["shape"]) if name == ROWS else flat.view(entry["shape"]).clone()
    return Kept(tensors.pop(ROWS), tensors, key is not None, memory)


def map_file(file: Path) -> mmap.mmap:
    """Map a file into memory that torch can use, which has to be writable; writes do not change the file.

    Linux refuses such a map if it is larger than memory and swap, unless none is reserved for the pages that could be
    written.
    """
    on_linux = sys.platform == "linux"
    how = {"flags": mmap.MAP_PRIVATE | _MAP_NORESERVE} if on_linux else {"access": mmap.ACCESS_COPY}
    with file.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, **how)


def _checksum_of(memory: mmap.mmap) -> int:
    checksum = 0
    with memoryview(memory) as content:
        for start in range(HEADER_BYTES, len(content), _CHECKED_AT_ONCE):
            with content[start : start + _CHECKED_AT_ONCE] as part:
                checksum = zlib.crc32(part, checksum)
            _give_back(memory)
    return checksum


def _give_back(memory: mmap.mmap) -> None:
    """Release the memory of the pages that were read; they are read from the file again when needed."""
    if hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)
