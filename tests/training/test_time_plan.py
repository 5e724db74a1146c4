"""The plan of a phase under a time limit, by a clock that a test moves."""

from __future__ import annotations

import pytest
from torch import nn
from torch.optim import SGD

from ftexp.config import SchedulerConfig
from ftexp.finetune.schedules import Schedule, Span
from ftexp.training.time_plan import NOT_TIMED, TIMED, PhasePlan, updates_that_fit


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def plan_of(
    clock: Clock, ends_at: float, epochs: int = 10, validation: float = 2.0, per_epoch: int = 10
) -> tuple[PhasePlan, list[int]]:
    changes: list[int] = []
    most = epochs * per_epoch
    given = ends_at, per_epoch, most, validation, changes.append
    plan = PhasePlan(clock, int, *given, agree=lambda updates: updates, planned=most)
    return plan, changes


def train(plan: PhasePlan, clock: Clock, per_update: float, validation: float) -> tuple[int, float]:
    """The updates that a phase of a run makes by its plan, and when it ends."""
    done = epochs = 0
    while epochs < plan.epochs:
        for _ in range(plan.per_epoch):
            clock.seconds += per_update
            done += 1
            plan.after_update(done)
            if plan.has_to_stop():
                plan.stop(done)
            if done >= plan.planned:
                break
        clock.seconds += validation
        epochs += 1
        plan.after_epoch(done)
    return done, clock.seconds


@pytest.mark.parametrize(
    ("seconds", "done_in_epoch", "updates"),
    [
        (24.0, 0, 20),  # two epochs of 10 s and 2 s
        (31.0, 0, 25),  # and a part of the third, with its validation
        (25.9, 0, 20),  # no time for a validation after a third
        (7.0, 6, 4),  # the rest of an epoch
        (1.0, 0, 0),
        (1000.0, 0, 50),  # all that is left
    ],
)
def test_an_epoch_counts_with_its_validation(seconds: float, done_in_epoch: int, updates: int) -> None:
    assert updates_that_fit(seconds, 1.0, 2.0, 10, done_in_epoch, most=50) == updates


@pytest.mark.parametrize(
    ("ends_at", "per_update", "validation"), [(60, 1.0, 2.0), (60, 0.3, 9.0), (5, 1.0, 2.0), (31, 2.0, 0.5)]
)
def test_a_phase_never_ends_late_and_uses_its_time(ends_at: float, per_update: float, validation: float) -> None:
    clock = Clock()
    plan, _ = plan_of(clock, ends_at, validation=validation)
    done, ended = train(plan, clock, per_update, validation)
    assert ended <= ends_at
    assert ends_at - ended < 2 * per_update + validation
    assert plan.planned == done
    assert plan.epochs_cut == (100 - done) // 10


def test_epochs_of_one_update_are_planned_once_their_time_is_known() -> None:
    clock = Clock()
    plan, _ = plan_of(clock, ends_at=31, epochs=40, validation=1.0, per_epoch=1)
    done, ended = train(plan, clock, 1.0, 1.0)
    assert (done, ended) == (13, 26)  # the first timing counts the validations between the updates
    assert plan.planned == done


def test_with_enough_time_nothing_is_changed() -> None:
    clock = Clock()
    plan, changes = plan_of(clock, ends_at=1000)
    assert train(plan, clock, 1.0, 2.0)[0] == 100
    assert (changes, plan.late, plan.epochs_cut) == ([], False, 0)


def test_the_plan_is_made_by_the_first_steps_but_not_the_very_first() -> None:
    clock = Clock()
    plan, changes = plan_of(clock, ends_at=100)
    for done in range(1, NOT_TIMED + TIMED + 1):
        assert changes == []
        clock.seconds += 10 if done <= NOT_TIMED else 1
        plan.after_update(done)
    assert plan.seconds_per_update == 1
    # 26 s are used: 2 more and a validation, five epochs of 12 s, and 8 of the next with its validation are 74 s.
    assert changes == [8 + 2 + 50 + 8]


def test_a_first_epoch_that_fills_a_cache_does_not_cut_the_later_ones() -> None:
    clock = Clock()
    plan, changes = plan_of(clock, ends_at=100, epochs=20)
    for done in range(1, 11):
        clock.seconds += 4 if done < 9 else 0.1  # the last images are in the cache
        plan.after_update(done)
    assert changes == [23]
    clock.seconds += 0.5
    plan.after_epoch(10)
    assert plan.planned in (30, 31)  # two epochs of 31.8 s, all but a little


def test_steps_that_become_slow_end_the_phase_in_time() -> None:
    clock = Clock()
    plan, _ = plan_of(clock, ends_at=40)
    for done in range(1, 9):
        clock.seconds += 1
        plan.after_update(done)
    assert not plan.has_to_stop()
    clock.seconds = 37.5
    assert plan.has_to_stop()
    plan.stop(9)
    assert (plan.late, plan.planned, plan.epochs) == (True, 9, 1)


@pytest.mark.parametrize(("planned", "late"), [(100, False), (10, False), (100, True)])
def test_what_the_device_still_computes_belongs_to_the_updates(planned: int, late: bool) -> None:
    """Updates are sent in no time and take 1 s each; a validation takes 3 s."""
    clock, queued = Clock(), [0]

    def wait() -> None:
        clock.seconds += queued.pop()
        queued.append(0)

    plan, _ = plan_of(clock, ends_at=1000, per_epoch=20 if late or planned == 10 else 10)
    plan.wait, plan.planned = wait, planned
    for done in range(1, 11):
        queued[0] += 1
        plan.after_update(done)
    if late:
        plan.stop(10)
    clock.seconds += 3
    plan.after_epoch(10)
    assert plan.validation == 3


def test_a_resumed_phase_keeps_its_plan() -> None:
    clock = Clock()
    plan, _ = plan_of(clock, ends_at=40)
    train(plan, clock, 1.0, 2.0)
    again, changes = plan_of(Clock(), ends_at=500)
    again.load_state_dict(plan.state_dict())
    assert (again.planned, again.ends_at, changes) == (plan.planned, 40, [plan.planned])


@pytest.mark.parametrize(("seconds", "planned"), [(10, 30), (39, 10)])
def test_a_phase_resumed_after_the_last_update_of_an_epoch_goes_on_if_there_is_time(
    seconds: float, planned: int
) -> None:
    clock = Clock()
    plan, _ = plan_of(clock, ends_at=40)
    plan.load_state_dict({"ends_at": 40, "planned": 30, "seconds_per_update": 1.0})
    clock.seconds = seconds
    plan.after_epoch(10)
    assert (plan.planned, plan.validation) == (planned, 2.0)
    for done in range(11, 21):
        clock.seconds += 5 if done == 11 else 0.5  # the first one of a process is not timed
        plan.after_update(done)
    clock.seconds += 3
    plan.after_epoch(20)
    assert (plan.seconds_per_update, plan.validation) == (0.5, 3)


def test_the_schedule_is_fitted_to_the_planned_updates() -> None:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    config = SchedulerConfig(name="linear", warmup_steps=90)  # longer than what the time allows
    schedule = Schedule(config, optimizer, Span(10, 10, 100))
    schedule.fit_to(24)
    rates = []
    for _ in range(24):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.after_step()
    assert rates[12] == 1.0
    assert rates[23] == pytest.approx(1 / 12)
    assert optimizer.param_groups[0]["lr"] == 0
