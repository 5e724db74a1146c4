"""Fingerprints kept between runs, by the content of the image."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

# Part of every key: a change of what a fingerprint holds makes the old ones unknown.
VERSION = 4
SECONDS_TO_WAIT_FOR_OTHERS = 60


class FingerprintCache:
    """A table key -> bytes in an sqlite file, safe for several processes at once; without a file it keeps nothing."""

    def __init__(self, file: Path | None) -> None:
        self._connection: sqlite3.Connection | None = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(file, timeout=SECONDS_TO_WAIT_FOR_OTHERS)
            with self._connection:
                self._connection.execute("CREATE TABLE IF NOT EXISTS fingerprints (key TEXT PRIMARY KEY, value BLOB)")

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the keys that are known, at most a few hundred at a time."""
        if self._connection is None:
            return {}
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, value FROM fingerprints WHERE key IN ({marks})"
        rows = self._connection.execute(query, [_versioned(key) for key in keys])
        return {key.partition("/")[2]: value for key, value in rows}

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep these."""
        if self._connection is not None and values:
            rows = [(_versioned(key), value) for key, value in values.items()]
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO fingerprints VALUES (?, ?)", rows)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()


def _versioned(key: str) -> str:
    return f"{VERSION}/{key}"
