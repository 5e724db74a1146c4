"""Signs of life of running trials, in the database: a machine cannot see the locks of another one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Event, Thread

from optuna import Study
from optuna.storages import BaseStorage, RDBStorage

from ftexp.hydra_internals import stale_trial_ids

# A minute is often enough for trials of minutes; three without a sign survive a restart of the database.
INTERVAL_SECONDS = 60
GRACE_SECONDS = 180

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that notes, again and again, that the trials of this process live; nothing for storages without clock.

    Args:
        running: gives the ids of these trials.
    """

    def __init__(self, storage: BaseStorage, running: Callable[[], Iterable[int]]) -> None:
        self._storage = storage if isinstance(storage, RDBStorage) else None
        self._running = running
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)
        if self._storage is not None:
            self._thread.start()

    def note(self, trial_id: int) -> None:
        """Note it at once, for a trial that has just begun."""
        if self._storage is not None:
            self._storage.record_heartbeat(trial_id)

    def silent(self, study: Study) -> set[int]:
        """The ids of running trials that have not shown a sign of life for ``GRACE_SECONDS``, on any machine."""
        return set(stale_trial_ids(self._storage, study)) if self._storage is not None else set()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        assert self._storage is not None
        while not self._ended.wait(INTERVAL_SECONDS):
            try:
                for trial_id in self._running():
                    self._storage.record_heartbeat(trial_id)
            except Exception as error:  # a database that is away for a minute is no reason to end
                log.warning("no sign of life could be left in the study's database: %s", type(error).__name__)
