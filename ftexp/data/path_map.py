"""A mapping from paths to a few bytes each, for as many paths as there are images."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from threading import Lock
from typing import Any

import numpy as np

KEY_BYTES = 16
# How many new paths are in a dict at least, and as a share of all, before they are sorted into the array.
LEAST_NEW, NEW_SHARE = 4096, 1 / 8


class PathMap:
    """Maps paths to values of a fixed length, without keeping the paths; threads can share it.

    A dict would take some 200 bytes for each path, and the path. Here a digest of 16 bytes stands for the path, in an
    array that is sorted by it, and only the last ones are in a dict.

    Args:
        value_bytes: the length of every value.
    """

    def __init__(self, value_bytes: int) -> None:
        self._value_bytes = value_bytes
        self._rows = np.empty(0, [("high", ">u8"), ("low", ">u8"), ("value", f"V{value_bytes}")])
        self._highs = array("Q")  # the same as in the rows, where bisecting is fast
        self._new: dict[bytes, bytes] = {}
        self._lock = Lock()

    def get(self, path: str) -> bytes | None:
        """The value of a path; None if it has none."""
        key = key_of(path)
        high = int.from_bytes(key[:8])
        with self._lock:
            if key in self._new:
                return self._new[key]
            at = bisect_left(self._highs, high)
            while at < len(self._highs) and self._highs[at] == high:
                row: bytes = self._rows[at].tobytes()
                if row.startswith(key):
                    return row[KEY_BYTES:]
                at += 1
        return None

    def put(self, path: str, value: bytes) -> None:
        """Set the value of a path."""
        assert len(value) == self._value_bytes
        with self._lock:
            self._new[key_of(path)] = value
            if len(self._new) > max(LEAST_NEW, NEW_SHARE * len(self._rows)):
                self._sort_new()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock, for other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def _sort_new(self) -> None:
        new = np.frombuffer(b"".join(key + value for key, value in self._new.items()), self._rows.dtype)
        rows = np.concatenate([self._rows, new], dtype=new.dtype)
        rows = rows[np.lexsort((rows["low"], rows["high"]))]  # of equal keys, the new one comes last
        differs = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
        self._rows = rows[np.append(differs, True)]
        self._highs, self._new = array("Q", self._rows["high"].astype(np.uint64).tobytes()), {}


def key_of(path: str) -> bytes:
    """The digest that stands for a path; of a million, two have the same with a probability of 10 ** -27."""
    # As file names, texts can have surrogates, which UTF-8 alone does not encode.
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
