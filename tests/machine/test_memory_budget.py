"""No byte of a device's memory is reserved twice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from ftexp.machine import memory_budget
from ftexp.machine.memory_budget import MemoryBudget, budget_of


@dataclass
class Device:
    """A fake of a device's memory: what is kept on it is no longer free."""

    free: int = 1000

    def keep(self, budget: MemoryBudget, num_bytes: int) -> bool:
        taken = budget.take(num_bytes)
        self.free -= num_bytes * taken
        return taken


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def budget(device: Device) -> MemoryBudget:
    return MemoryBudget(lambda: device.free, 0.85, keeps=True)


def test_all_that_is_kept_takes_half_together(device: Device, budget: MemoryBudget) -> None:
    """Training images, validation images and views in turn: half of the rest each would be 937 of 1000."""
    assert [device.keep(budget, size) for size in (300, 250, 150, 51, 50, 1)] == [True, False, True, False, True, False]
    assert device.free == 500


def test_what_was_measured_for_a_step_stays_free(device: Device, budget: MemoryBudget) -> None:
    assert budget.most_for_step() == 850
    budget.promise_step(700)
    assert [device.keep(budget, size) for size in (151, 100, 51, 50)] == [False, True, False, True]
    assert device.free - 700 == 150, "for fragments and libraries"


def test_a_small_step_leaves_half_and_no_more(device: Device, budget: MemoryBudget) -> None:
    budget.promise_step(10)
    assert [device.keep(budget, size) for size in (501, 500)] == [False, True]


def test_a_step_that_takes_all_leaves_nothing(device: Device, budget: MemoryBudget) -> None:
    budget.promise_step(850)
    assert not device.keep(budget, 1)


def test_the_end_of_a_phase_gives_everything_back(device: Device, budget: MemoryBudget) -> None:
    assert device.keep(budget, 500)
    assert not device.keep(budget, 1)
    device.free = 900  # the images are gone, and the optimizer of the next phase is there
    budget.end_phase()
    assert [device.keep(budget, size) for size in (451, 450)] == [False, True]


def test_it_works_with_a_device_that_does_not_tell_what_is_kept(budget: MemoryBudget) -> None:
    assert [budget.take(size) for size in (300, 201, 200)] == [True, False, True]


def test_what_other_processes_take_meanwhile_is_not_given_away(device: Device, budget: MemoryBudget) -> None:
    assert device.keep(budget, 100)
    device.free -= 350
    assert [device.keep(budget, size) for size in (51, 50)] == [False, True]


def test_a_cpu_keeps_nothing_and_is_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr(memory_budget.psutil, "virtual_memory", lambda: memory)
    budget = budget_of(torch.device("cpu"), 2)
    assert budget.most_for_step() == 250
    assert not budget.take(0)


@pytest.mark.parametrize(("share", "available"), [(1.0, 800), (0.5, 400)])
def test_on_cuda_memory_that_torch_holds_and_does_not_use_is_free_up_to_the_share_of_the_process(
    monkeypatch: pytest.MonkeyPatch, share: float, available: int
) -> None:
    """After a phase, torch keeps what its steps took; the next phase's steps take it again."""
    for name, answer in (
        ("mem_get_info", (200, 1000)),
        ("memory_reserved", 700),
        ("memory_allocated", 100),
        ("get_per_process_memory_fraction", share),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda _, answer=answer: answer)
    budget = budget_of(torch.device("cuda"), 1)
    assert budget.most_for_step() == 0.85 * available
    assert [budget.take(available // 2 + 1), budget.take(available // 2)] == [False, True]
