"""A lock for the processes of a sweep: a file on one machine, and the shared database on several machines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Engine, NullPool, create_engine, text

TIMEOUT_SECONDS = 120


class StudyLock:
    """The lock that is held while the tables of a study are created, and while a process asks for trials.

    With a database other than PostgreSQL, only the file is locked; then several machines may start too many trials.

    Args:
        file: the lock file, the same for all processes of the sweep on this machine.
        url: URL of the study's storage.
        name: name of the study.
    """

    def __init__(self, file: Path, url: str, name: str) -> None:
        self._file = FileLock(file, timeout=TIMEOUT_SECONDS)
        self._url = url
        self._number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        self._engine: Engine | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock within the ``with``.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if the database cannot be reached, or another process holds it for too long.
        """
        with self._file, self._of_database():
            yield

    @contextmanager
    def _of_database(self) -> Iterator[None]:
        if not self._url.startswith("postgresql"):
            yield
            return
        # No pool, because the network may close a connection that is idle between trials.
        self._engine = self._engine or create_engine(self._url, poolclass=NullPool)
        with self._engine.connect() as connection:  # closing it releases the advisory lock
            connection.execute(text(f"SET lock_timeout = '{TIMEOUT_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": self._number})
            connection.commit()  # the lock belongs to the session, so no transaction stays open
            yield
