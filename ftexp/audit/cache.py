"""The cache of fingerprints, by the content of the image. Without it an audit takes longer, with the same result."""

from __future__ import annotations

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ftexp.data.loading.decoding import decoders

# Part of every key; increase it when the content of fingerprints changes, so that old values are not used. Alignments
# (aligner.py) and scores of metadata (label_from_field.py) have versions of their own.
VERSION = 8
SECONDS_TO_WAIT_FOR_OTHERS = 60
CHECKSUM_BYTES = 4

log = logging.getLogger(__name__)

# The files that a warning was given about: an audit opens its file twice, to look at the images and to compare them.
_warned_about: set[Path] = set()


class FingerprintCache:
    """A table key -> bytes in an SQLite file, which several processes can use at the same time.

    If the file cannot be read or written, there is one warning in a process and the audit continues without it. Damaged
    entries are ignored.

    Args:
        file: the path, in which ``~`` is the user's home; None: nothing is kept.
    """

    def __init__(self, file: str | os.PathLike[str] | None) -> None:
        self._file = None if file is None else Path(file).expanduser()
        self._connection: sqlite3.Connection | None = None
        if self._file is not None:
            with self._errors_as_warning():
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(self._file, timeout=SECONDS_TO_WAIT_FOR_OTHERS)
                with self._connection:
                    self._connection.execute(
                        "CREATE TABLE IF NOT EXISTS fingerprints (key TEXT PRIMARY KEY, value BLOB)"
                    )

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Get the values of the keys that are in the cache; at most a few hundred keys at a time."""
        found: dict[str, bytes] = {}
        if self._connection is not None:
            with self._errors_as_warning():
                marks = ",".join("?" * len(keys))
                query = f"SELECT key, value FROM fingerprints WHERE key IN ({marks})"
                rows = self._connection.execute(query, [_versioned(key) for key in keys]).fetchall()
                found = {key.partition("/")[2]: value[CHECKSUM_BYTES:] for key, value in rows if _is_whole(value)}
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        """Add values to the cache."""
        if self._connection is not None and values:
            rows = [(_versioned(key), _checksum(value) + value) for key, value in values.items()]
            with self._errors_as_warning(), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO fingerprints VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextmanager
    def _errors_as_warning(self) -> Iterator[None]:
        """Turn the first error of the file into a warning; a file that can be read and not written stays in use."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if self._file is not None and self._file.absolute() not in _warned_about:
                _warned_about.add(self._file.absolute())
                log.warning(
                    "audit   audit.cache=%s cannot be used (%s), so every run has to decode all images again. Remove "
                    "it, set another file with audit.cache=FILE, or none with audit.cache=null.",
                    self._file,
                    error,
                )
            if "readonly" not in str(error):
                self.close()


def _versioned(key: str) -> str:
    return f"{VERSION}, {decoders()}/{key}"


def _checksum(value: bytes) -> bytes:
    return zlib.crc32(value).to_bytes(CHECKSUM_BYTES, "little")


def _is_whole(value: object) -> bool:
    return isinstance(value, bytes) and value[:CHECKSUM_BYTES] == _checksum(value[CHECKSUM_BYTES:])
