"""Lists the members of a tar with their offsets, by its headers alone: several times as fast as tarfile.

Source: POSIX pax, "ustar Interchange Format" and "pax Header Block", and the long names of GNU tar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ftexp.errors import DataError

# Bytes of a tar from an offset on, fewer at its end.
ReadAt = Callable[[int, int], bytes]

BLOCK = 512
# A header and what follows it are read at once. Between small members, where every byte is needed, it gets more and
# more; behind a large one, whose bytes are not, it is little again.
_LEAST_READ, _MOST_READ = 4096, 2**18
# The sum of the bytes of a header, which counts its own field as spaces.
_SUM, _SUM_FIELD = slice(148, 156), 8 * ord(" ")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_FILES, _LONG_NAME, _PAX, _PAX_OF_ALL, _SPARSE = b"0\07", b"L", b"x", b"g", b"S"
_NO_FILES = b"123456KV"  # links, devices, folders, pipes, the long name of a link, a volume


class Member(NamedTuple):
    """A regular file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


class TarReader:
    """Reads a tar from its beginning to its end.

    Args:
        name: of the tar, for messages.
        read_at: reads it.
        size: of the tar in bytes.
    """

    def __init__(self, name: str, read_at: ReadAt, size: int) -> None:
        self._name, self._read_at, self._size = name, read_at, size
        self._at, self._chunk, self._ahead = 0, b"", _LEAST_READ

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes; what lies beside the last header costs no reading."""
        start = offset - self._at
        if start < 0 or start + size > len(self._chunk):
            near = start <= len(self._chunk) + _LEAST_READ
            self._ahead = min(2 * self._ahead, _MOST_READ) if near else _LEAST_READ
            self._at, self._chunk = offset, self._read_at(offset, max(size, self._ahead))
            start = 0
        return self._chunk[start : start + size]

    def members(self) -> Iterator[Member]:
        """Yield the regular files in it, in their order.

        Raises:
            DataError: when it is no tar, is compressed or damaged, or is not complete.
        """
        self._refuse_others()
        position, long_name, records = 0, None, dict[str, str]()
        while True:
            header = self.read(position, BLOCK)
            if len(header) < BLOCK:
                raise self._cut_short("has no end")
            if not header[0] and not any(header):
                return self._refuse_more(position)
            size = _number(header[124:136]) if _is_header(header) else None
            if size is None:
                raise DataError(f"{self._name} is damaged at byte {position:,}: no header of a member is there.")
            start, kind = position + BLOCK, header[156:157]
            if kind in _FILES:
                size = int(records.get("size", size))
                name = records.get("path") or long_name or _name(header)
                if start + size > self._size:
                    raise self._cut_short(f"ends within {name}")
                yield Member(name, start, size)
                long_name, records = None, {}
            elif kind in _PAX:
                records = _records(self.read(start, size))
            elif kind in _LONG_NAME:
                long_name = _text(self.read(start, size).rstrip(b"\0"))
            elif kind in _SPARSE or kind not in _NO_FILES + _PAX_OF_ALL:
                raise DataError(f"{self._name}: {_name(header)} is of a kind ({kind!r}) that is not supported.")
            elif kind not in b"K" + _PAX_OF_ALL:
                long_name, records = None, {}
            position = start + -(-size // BLOCK) * BLOCK

    def _refuse_others(self) -> None:
        start = self.read(0, BLOCK)
        for signature, program in _COMPRESSED.items():
            if start.startswith(signature):
                raise DataError(
                    f"{self._name} is compressed ({program}), so single images in it cannot be read. Unpack it to a"
                    " plain tar; images do not get smaller by it."
                )
        if len(start) < BLOCK or (any(start) and not _is_header(start)):
            raise DataError(f"{self._name} is not a tar ({self._size:,} bytes); download or write it again.")

    def _refuse_more(self, position: int) -> None:
        """Refuse more members behind the end, where no program would look for them."""
        while rest := self.read(position, 2**20):
            if rest.strip(b"\0"):
                raise DataError(
                    f"{self._name} has data after its end mark, as tars joined with cat do. Join them by tar"
                    " --concatenate, or list them one by one."
                )
            position += len(rest)

    def _cut_short(self, what: str) -> DataError:
        return DataError(f"{self._name} {what}: it was not written or copied completely. Copy it or write it again.")


def _is_header(block: bytes) -> bool:
    return block[257:262] == b"ustar" or _number(block[_SUM]) == sum(block) - sum(block[_SUM]) + _SUM_FIELD


def _number(field: bytes) -> int | None:
    """A number in octal digits or, from 8 GiB on, in bytes; None if it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    try:
        number = int(field.rstrip(b" \0") or b"0", 8)
    except ValueError:
        return None
    return number if number >= 0 else None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:  # of GNU tar, other fields are there
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """The records of a pax header, each ``LENGTH KEY=VALUE\\n``."""
    records = {}
    while content:
        length, _, _ = content.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(content):
            break  # zero bytes at its end
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        records[_text(key)] = _text(value)
        content = content[int(length) :]
    return records
