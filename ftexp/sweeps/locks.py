"""One process of a sweep at a time: on a machine by a file, on several by the database that they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Engine, NullPool, create_engine, text

TIMEOUT_SECONDS = 120


class StudyLock:
    """Held while the tables of a study are made and its trials are shared out.

    A database other than PostgreSQL is guarded by the file alone: then several machines may start a trial too many.

    Args:
        file: the same for all processes of the sweep on this machine.
        url: of the study's storage.
    """

    def __init__(self, file: Path, url: str, name: str) -> None:
        self._file = FileLock(file, timeout=TIMEOUT_SECONDS)
        self._url = url
        self._number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        self._engine: Engine | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all others out.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if the database cannot be reached, or is held for too long.
        """
        with self._file, self._of_database():
            yield

    @contextmanager
    def _of_database(self) -> Iterator[None]:
        if not self._url.startswith("postgresql"):
            yield
            return
        # No pool: a connection that waits idly between trials may be cut by whatever lies on the way.
        self._engine = self._engine or create_engine(self._url, poolclass=NullPool)
        with self._engine.connect() as connection:  # its end gives an advisory lock back, whatever happens
            connection.execute(text(f"SET lock_timeout = '{TIMEOUT_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": self._number})
            connection.commit()  # the lock is the session's: no transaction is left open meanwhile
            yield
