"""The test ledger: how often each test set has been used, counted over all runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ftexp.config import TrackingConfig
from ftexp.config.uri import sqlite_file
from ftexp.errors import DataError

SECONDS_TO_WAIT_FOR_OTHERS = 60


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a test set.

    Attributes:
        run: the folder of the run.
        opened_at: when it was used, in UTC (ISO 8601).
        accuracy: None when the run ended before it had scored the test set.
    """

    run: str
    opened_at: str
    accuracy: float | None


class TestLedger:
    """An SQLite file with one row per use of a test set; several processes can write to it at the same time.

    A test set is identified by the content of its images and their labels, so renaming or moving files does not reset
    its count.
    """

    __test__ = False  # pytest would take the class for a test case because of its name

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
        """Refuse a run before training if it could not score its test set afterwards.

        Raises:
            DataError: when the test set has been used ``max_uses`` times, or when the file cannot be written.
        """
        with self._connected() as connection:
            connection.execute("INSERT INTO uses (test_set) VALUES ('')")  # fails if the file cannot be written
            connection.rollback()
        uses = self.uses(test_set)
        if max_uses is not None and len(uses) >= max_uses:
            listed = "\n".join(f"  {use.opened_at}  {use.run}" for use in uses)
            often = "once" if len(uses) == 1 else f"{len(uses)} times"
            raise DataError(
                f"This test set has been used {often}, and test.max_uses={max_uses}:\n{listed}\n"
                "Choosing between runs by their test scores makes these scores too optimistic. Compare runs by their"
                f" validation scores, use a new test set, or raise test.max_uses ({self._file} has the count)."
            )

    def record_use(self, test_set: str, run: str) -> int:
        """Count a use before it happens.

        A run that was killed before it had a score and is resumed counts only once.

        Returns:
            The ID of the use, for ``record_score``.
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
                f"{self._file}, which counts how often each test set is used, cannot be used: {error}. Repair it, or "
                "move it away to begin a new count. It is kept beside the tracking store: set another folder with "
                "tracking.uri=sqlite:///FOLDER/mlflow.db."
            ) from error


def open_ledger(config: TrackingConfig, started_in: Path | None = None) -> TestLedger:
    """Open the count of test openings: beside the tracking database, or in the working folder if there is none.

    Args:
        config: the settings of the run's tracking.
        started_in: the working folder of the run; None: that of this process.
    """
    store = sqlite_file(config.uri or "", started_in)
    return TestLedger((store.parent if store else started_in or Path.cwd()) / "test_ledger.sqlite")
