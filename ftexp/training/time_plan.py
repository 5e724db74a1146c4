"""How many updates of a phase fit into its share of ``train.max_minutes``, by the times of its own steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The first updates of a phase are slower, so they are not timed; the plan is made after the timed ones.
NOT_TIMED, TIMED = 2, 6


def updates_that_fit(
    seconds: float, per_update: float, validation: float, per_epoch: int, done_in_epoch: int, most: int
) -> int:
    """The number of updates, with a validation after every epoch and at the end, that a time allows.

    Args:
        seconds: the time.
        per_update: seconds of an update.
        validation: seconds of a validation, with the checkpoint after it.
        per_epoch: updates in an epoch.
        done_in_epoch: updates of the present epoch that are done.
        most: updates that are left in the phase.
    """
    updates, position = 0, done_in_epoch
    while updates < most:
        chunk = min(per_epoch - position, most - updates)
        if chunk * per_update + validation > seconds:
            return updates + max(0, min(chunk, int((seconds - validation) / max(per_update, 1e-9))))
        seconds -= chunk * per_update + validation
        updates, position = updates + chunk, 0
    return updates


@dataclass(slots=True)
class PhasePlan:
    """The updates of one phase under a time limit.

    Attributes:
        used: function that returns the seconds that the run has used.
        wait: waits until the device has computed everything; called before a time that counts.
        ends_at: seconds of the run at which the phase has to end.
        per_epoch: updates in an epoch.
        most: updates in all epochs of the phase.
        validation: seconds of a validation with its checkpoint: an estimate, until one was measured.
        changed: is called with the number of updates whenever that changes.
        agree: function from this process's number of updates to that of the main process.
        planned: updates that the phase will make.
        seconds_per_update: as measured; None: not yet.
        late: whether the time ran out before the planned updates were made.
    """

    used: Callable[[], float]
    wait: Callable[[], object]
    ends_at: float
    per_epoch: int
    most: int
    validation: float
    changed: Callable[[int], object]
    agree: Callable[[int], int]
    planned: int
    seconds_per_update: float | None = None
    late: bool = False
    _seen: int = 0
    _since: float = 0.0
    _previous: float | None = None
    _latest: float = 0.0
    _began: float | None = None
    _seen_before: int = 0
    _is_first_epoch: bool = True

    @property
    def epochs(self) -> int:
        """Epochs of the phase; the last may be a part of one."""
        return math.ceil(self.planned / self.per_epoch)

    @property
    def epochs_cut(self) -> int:
        """Whole epochs of the phase that the time does not allow."""
        return (self.most - self.planned) // self.per_epoch

    def after_update(self, done: int) -> None:
        """Time the first updates, and make the plan when they are done.

        Args:
            done: updates of the phase so far.
        """
        self._seen += 1
        ends_epoch = done % self.per_epoch == 0 or done >= self.planned
        if ends_epoch or self._seen in (NOT_TIMED, NOT_TIMED + TIMED):
            self.wait()
        now = self.used()
        if self._began is None:  # the first update of this process in the phase is not timed
            self._began, self._seen_before = now, self._seen
        self._latest = 0.0 if self._previous is None else now - self._previous
        self._previous = now
        if self._seen == NOT_TIMED:
            self._since = now
        elif self._seen == NOT_TIMED + TIMED:
            self.seconds_per_update = (now - self._since) / TIMED
            self._plan(done, may_grow=False)

    def has_to_stop(self) -> bool:
        """Whether another update would leave too little time for the validation after it."""
        update = self._latest if self.seconds_per_update is None else self.seconds_per_update
        return self.used() + update + self.validation > self.ends_at

    def stop(self, done: int) -> None:
        """End the phase with the updates that are done."""
        self.wait()
        self._previous = self.used()  # what follows is the validation
        self.late = self.late or done < self.planned
        self._set(done)

    def after_epoch(self, done: int) -> None:
        """Plan again by the times of an epoch, its validation and its checkpoint.

        After the first epoch, and in its first half, a plan may also become longer. After a single update nothing is
        known of its time yet, and the plan stays.

        Args:
            done: updates of the phase so far.
        """
        self.wait()
        now = self.used()
        if self._previous is None:  # the run was resumed after the last update of the epoch: no update was timed
            self._previous = now
            if done < self.planned and self.seconds_per_update is not None:
                self._plan(done, may_grow=False)
            return
        if self._began is not None and self._seen > self._seen_before:
            self.seconds_per_update = (self._previous - self._began) / (self._seen - self._seen_before)
        self.validation = now - self._previous
        self._began, self._seen_before = now, self._seen
        if done < self.planned and self.seconds_per_update is not None:
            self._plan(done, may_grow=self._is_first_epoch or 2 * done <= self.planned)
        self._is_first_epoch = False

    def state_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {"ends_at": self.ends_at, "planned": self.planned, "seconds_per_update": self.seconds_per_update}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the plan that ``state_dict`` returned."""
        self.ends_at, self.seconds_per_update = state["ends_at"], state["seconds_per_update"]
        self._is_first_epoch = False
        self._set(int(state["planned"]))

    def _plan(self, done: int, *, may_grow: bool) -> None:
        assert self.seconds_per_update is not None
        left = self.ends_at - self.used()
        place = done % self.per_epoch
        fits = updates_that_fit(left, self.seconds_per_update, self.validation, self.per_epoch, place, self.most - done)
        updates = self.agree(done + fits)
        if updates < self.planned or may_grow:
            self._set(updates)

    def _set(self, updates: int) -> None:
        if updates != self.planned:
            self.planned = updates
            self.changed(updates)
