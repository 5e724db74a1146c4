from __future__ import annotations

import pytest
import torch

from ftexp.config import SchedulerConfig
from ftexp.finetune.schedules import build_scheduler, schedule_factor

HALF = 2**0.5 / 2


@pytest.mark.parametrize(
    ("config", "total", "factors"),
    [
        # No warmup: cos(0), cos(pi/4), cos(pi/2), cos(3 pi/4), cos(pi), each as (1 + cos) / 2.
        ({"name": "warmup_cosine"}, 4, [1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0]),
        # Two ticks of warmup in thirds of the way, then the cosine over the remaining four.
        ({"name": "warmup_cosine", "warmup": 0.33}, 6, [1 / 3, 2 / 3, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0]),
        # The floor is a share of each group's own rate.
        ({"name": "warmup_cosine", "floor": 0.2}, 2, [1, 0.6, 0.2]),
        # A phase of a single tick trains at the full rate.
        ({"name": "warmup_cosine", "warmup": 0.1}, 1, [1, 0]),
        ({"name": "constant", "floor": 1.0, "warmup": 0.5}, 4, [1 / 3, 2 / 3, 1, 1, 1]),
    ],
)
def test_factors_by_hand(config: dict[str, object], total: int, factors: list[float]) -> None:
    schedule = SchedulerConfig(**config)
    assert [schedule_factor(schedule, tick, total) for tick in range(total + 1)] == pytest.approx(factors)


def test_after_the_end_it_never_rises_again() -> None:
    schedule = SchedulerConfig(name="warmup_cosine", warmup=0.2, floor=0.1)
    assert [schedule_factor(schedule, tick, 10) for tick in range(10, 40)] == [pytest.approx(0.1)] * 30


@pytest.mark.parametrize(("interval", "ticks_per_epoch"), [("step", 3), ("epoch", 1)])
def test_all_groups_are_scaled_alike_and_end_at_the_floor(interval: str, ticks_per_epoch: int) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1e-1, 1e-6)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    config = SchedulerConfig(name="warmup_cosine", warmup=0.25, floor=0.5, interval=interval)
    scheduler = build_scheduler(config, optimizer, epochs=4, steps_per_epoch=3)
    for _ in range(4 * ticks_per_epoch):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[1] / rates[0] == pytest.approx(1e-5)
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5e-1, 0.5e-6])
