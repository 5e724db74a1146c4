"""The test ledger: how often each test set has been used, counted over all runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ftexp.errors import DataError

SECONDS_TO_WAIT_FOR_OTHERS = 60


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a test set; the accuracy is None when the run ended before it had scored the test set."""

    run: str
    opened_at: str
    accuracy: float | None


class TestLedger:
    """An SQLite file with a row per use of a test set; several processes may write to it at once.

    A test set is identified by the content of its images and their labels, so renaming or moving files does not reset
    its count.
    """

    __test__ = False  # no test case, whatever its name says to pytest

    def __init__(self, file: Path) -> None:
        self._file = file

    def uses(self, test_set: str) -> list[Use]:
        """The uses of a test set so far, oldest first."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT run, opened_at, accuracy FROM uses WHERE test_set = ? ORDER BY id", [test_set]
            )
            return [Use(*row) for row in rows]

    def check(self, test_set: str, max_uses: int | None) -> None:
        """Refuse before training what could not be scored after it.

        Raises:
            DataError: when the test set has been used ``max_uses`` times, or when the file cannot be written.
        """
        with self._connected() as connection:
            connection.execute("INSERT INTO uses (test_set) VALUES ('')")  # fails where nothing can be written
            connection.rollback()
        uses = self.uses(test_set)
        if max_uses is not None and len(uses) >= max_uses:
            listed = "\n".join(f"  {use.opened_at}  {use.run}" for use in uses)
            raise DataError(
                f"This test set has been used {len(uses)} times, and test.max_uses={max_uses}:\n{listed}\n"
                "Choosing between runs by test scores makes them too good. Compare by validation scores, take a fresh"
                " test set, or raise"
                f" test.max_uses ({self._file} keeps the count)."
            )

    def record_use(self, test_set: str, run: str) -> int:
        """Count a use before it happens.

        A run that was killed before it had a score and is resumed counts once.

        Returns:
            The id of the use, for ``record_score``.
        """
        with self._connected() as connection, connection:
            begun = "SELECT id FROM uses WHERE test_set = ? AND run = ? AND accuracy IS NULL"
            if (row := connection.execute(begun, [test_set, run]).fetchone()) is not None:
                return int(row[0])
            now = datetime.now(UTC).isoformat(timespec="seconds")
            cursor = connection.execute(
                "INSERT INTO uses (test_set, run, opened_at) VALUES (?, ?, ?)", [test_set, run, now]
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def record_score(self, use: int, accuracy: float) -> None:
        """Add the score to a use."""
        with self._connected() as connection, connection:
            connection.execute("UPDATE uses SET accuracy = ? WHERE id = ?", [accuracy, use])

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file, timeout=SECONDS_TO_WAIT_FOR_OTHERS)) as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS uses"
                    " (id INTEGER PRIMARY KEY, test_set TEXT, run TEXT, opened_at TEXT, accuracy REAL)"
                )
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{self._file}, which counts how often each test set is opened, cannot be used: {error}. Repair it, or "
                "move it away to begin a new count. It is kept beside the tracking store: "
                "tracking.uri=sqlite:///FOLDER/mlflow.db takes another folder."
            ) from error
