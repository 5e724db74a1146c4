"""Heartbeats of running trials in the database, because a machine cannot see the locks of another one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from threading import Event, Thread

from optuna import Study
from optuna.storages import BaseStorage, RDBStorage

from ftexp.hydra_internals import stale_trial_ids

# One heartbeat a minute is enough, because trials take minutes; three may be missing while the database restarts.
INTERVAL_SECONDS = 60
GRACE_SECONDS = 180

log = logging.getLogger(__name__)


class Heartbeat:
    """A thread that records heartbeats of this process's trials; it does nothing for storages without them.

    Args:
        storage: the storage of the study.
        running: returns the ids of these trials.
    """

    def __init__(self, storage: BaseStorage, running: Callable[[], Iterable[int]]) -> None:
        self._storage = storage if isinstance(storage, RDBStorage) else None
        self._running = running
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)
        if self._storage is not None:
            self._thread.start()

    def note(self, trial_id: int) -> None:
        """Record a heartbeat immediately, for a trial that has just begun."""
        if self._storage is not None:
            self._storage.record_heartbeat(trial_id)

    def silent(self, study: Study) -> set[int]:
        """The ids of running trials, on any machine, without a heartbeat for ``GRACE_SECONDS``."""
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
            except Exception as error:  # the database may be back a minute later
                log.warning("The heartbeat could not be written to the study's database: %s", type(error).__name__)
