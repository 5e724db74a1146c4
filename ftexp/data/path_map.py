"""A mapping from paths to a few bytes each, for as many paths as there are images."""

from __future__ import annotations

import hashlib
from threading import Lock

KEY_BYTES = 16
FIRST_SLOTS = 1024


class PathMap:
    """Maps paths to values of a fixed length, without keeping the paths; threads can share it.

    A dict would take some 200 bytes for each path, and the path. Here it is a digest of 16 bytes in place of the path,
    and the value, in a table of which four to six ninths are used (open addressing, Knuth, The Art of Computer
    Programming, volume 3, 6.4).

    Args:
        value_bytes: the length of every value.
    """

    def __init__(self, value_bytes: int) -> None:
        self._value_bytes = value_bytes
        self._slots, self._used = bytearray(FIRST_SLOTS * self._slot_bytes), 0
        self._lock = Lock()

    def get(self, path: str) -> bytes | None:
        """The value of a path; None if it has none."""
        key = _key(path)
        with self._lock:
            at = self._find(key)
            kept = bytes(self._slots[at : at + self._slot_bytes])
        return kept[KEY_BYTES:] if kept.startswith(key) else None

    def put(self, path: str, value: bytes) -> None:
        """Set the value of a path."""
        assert len(value) == self._value_bytes
        with self._lock:
            self._put(_key(path), value)
            if 3 * self._used > 2 * (len(self._slots) // self._slot_bytes):
                self._grow()

    def __len__(self) -> int:
        return self._used

    def __getstate__(self) -> tuple[int, bytearray, int]:
        """Everything but the lock, for other processes."""
        return self._value_bytes, self._slots, self._used

    def __setstate__(self, state: tuple[int, bytearray, int]) -> None:
        self._value_bytes, self._slots, self._used = state
        self._lock = Lock()

    @property
    def _slot_bytes(self) -> int:
        return KEY_BYTES + self._value_bytes

    def _put(self, key: bytes, value: bytes) -> None:
        at = self._find(key)
        self._used += not self._slots.startswith(key, at)
        self._slots[at : at + self._slot_bytes] = key + value

    def _find(self, key: bytes) -> int:
        """Where the slot of a key begins: its own, or the free one that it would get."""
        size, width = len(self._slots), self._slot_bytes
        at = int.from_bytes(key[:8], "little") % (size // width) * width
        while not self._slots.startswith((key, FREE), at):
            at = (at + width) % size
        return at

    def _grow(self) -> None:
        before, width = self._slots, self._slot_bytes
        self._slots, self._used = bytearray(3 * (len(before) // width) // 2 * width), 0
        for at in range(0, len(before), width):
            if not before.startswith(FREE, at):
                slot = bytes(before[at : at + width])
                self._put(slot[:KEY_BYTES], slot[KEY_BYTES:])


# What the digest of a path never is, but with a probability of 2 ** -128.
FREE = bytes(KEY_BYTES)


def _key(path: str) -> bytes:
    # As file names, texts can have surrogates, which UTF-8 alone does not encode.
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
