"""Fingerprints kept between runs, by the content of the image. Without them an audit only takes longer."""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ftexp.data.loading.decoding import decoders

# Part of every key: a change of what a fingerprint holds makes the old ones unknown.
VERSION = 6
SECONDS_TO_WAIT_FOR_OTHERS = 60
CHECKSUM_BYTES = 4

log = logging.getLogger(__name__)


class FingerprintCache:
    """A table key -> bytes in an sqlite file, safe for several processes at once; without a file it keeps nothing.

    A file that cannot be read or written is one warning, and the audit goes on without it. What is damaged in it counts
    as unknown.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._warned = False
        if file is not None:
            with self._going_on():
                file.parent.mkdir(parents=True, exist_ok=True)
                self._connection = sqlite3.connect(file, timeout=SECONDS_TO_WAIT_FOR_OTHERS)
                with self._connection:
                    self._connection.execute(
                        "CREATE TABLE IF NOT EXISTS fingerprints (key TEXT PRIMARY KEY, value BLOB)"
                    )

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are known, at most a few hundred at a time."""
        found: dict[str, bytes] = {}
        if self._connection is not None:
            with self._going_on():
                marks = ",".join("?" * len(keys))
                query = f"SELECT key, value FROM fingerprints WHERE key IN ({marks})"
                rows = self._connection.execute(query, [_versioned(key) for key in keys]).fetchall()
                found = {key.partition("/")[2]: value[CHECKSUM_BYTES:] for key, value in rows if _is_whole(value)}
        return found

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep these."""
        if self._connection is not None and values:
            rows = [(_versioned(key), _checksum(value) + value) for key, value in values.items()]
            with self._going_on(), self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO fingerprints VALUES (?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Make a warning of what is wrong with the file, the first time; one that may only be read is read on."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if not self._warned:
                log.warning(
                    "audit   audit.cache=%s cannot be used (%s), so images are looked at anew in every run. Remove it, "
                    "take another file with audit.cache=FILE, or none with audit.cache=null.",
                    self._file,
                    error,
                )
            self._warned = True
            if "readonly" not in str(error):
                self.close()


def _versioned(key: str) -> str:
    return f"{VERSION}, {decoders()}/{key}"


def _checksum(value: bytes) -> bytes:
    return zlib.crc32(value).to_bytes(CHECKSUM_BYTES, "little")


def _is_whole(value: object) -> bool:
    return isinstance(value, bytes) and value[:CHECKSUM_BYTES] == _checksum(value[CHECKSUM_BYTES:])
