from __future__ import annotations

import math

import pytest
import torch
from conftest import Compose

from ftexp.config import PlateauConfig, SchedulerConfig
from ftexp.errors import ConfigError
from ftexp.finetune.schedules import Plateau, Schedule, Span, schedule_factor

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
        ({"name": "linear", "warmup_steps": 1, "floor": 0.2}, 5, [0.5, 1, 0.8, 0.6, 0.4, 0.2]),
        # From 1/25 up along half a cosine over two ticks, at its middle 0.52; then down over four.
        ({"name": "one_cycle", "warmup": 0.33}, 6, [0.04, 0.52, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0]),
        # 100 images: warmup over a fifth, then a tenth after each further fifth but the last.
        ({"name": "bit"}, 10, [1 / 3, 2 / 3, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
        ({"name": "plateau", "warmup_steps": 1, "floor": 0.5}, 3, [0.5, 1, 1, 1]),
    ],
)
def test_factors_by_hand(config: dict[str, object], total: int, factors: list[float]) -> None:
    schedule = (PlateauConfig if config["name"] == "plateau" else SchedulerConfig)(**config)
    span = Span(epochs=1, steps_per_epoch=total, num_samples=100)
    assert [schedule_factor(schedule, tick, span) for tick in range(total + 1)] == pytest.approx(factors)


@pytest.mark.parametrize(
    ("num_samples", "warmup", "drops"),
    [
        (19_999, 100, [200, 300, 400]),  # of 500 steps
        (20_000, 500, [3000, 6000, 9000]),  # of 10,000
        (499_999, 500, [3000, 6000, 9000]),
        (500_000, 500, [6000, 12_000, 18_000]),  # of 20,000
    ],
)
def test_bit_is_the_published_rule_at_its_own_length(num_samples: int, warmup: int, drops: list[int]) -> None:
    """As get_lr in big_transfer/bit_hyperrule.py, but for its warmup, which begins with a step at rate 0."""
    total = {100: 500, 3000: 10_000, 6000: 20_000}[drops[0] if warmup == 500 else 100]
    span, config = Span(1, total, num_samples), SchedulerConfig(name="bit")
    for tick in (0, 10, warmup - 1, warmup, *(drop + late for drop in drops for late in (0, 1)), total - 1):
        published = tick / warmup if tick < warmup else 0.1 ** sum(drop < tick for drop in drops)
        assert schedule_factor(config, tick, span) == pytest.approx(published, abs=1 / warmup)


NAMES = ("warmup_cosine", "linear", "one_cycle", "bit")


@pytest.mark.parametrize("name", NAMES)
def test_it_falls_from_the_warmup_on_never_above_the_own_rate_and_never_again_after_its_end(name: str) -> None:
    schedule = SchedulerConfig(name=name, **({} if name == "bit" else {"warmup": 0.2, "floor": 0.1}))
    factors = [schedule_factor(schedule, tick, Span(2, 5, 100)) for tick in range(40)]
    assert max(factors) == factors[2] == 1
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[10:] == [pytest.approx(0.001 if name == "bit" else 0.1)] * 30


@pytest.mark.parametrize(
    ("given", "interval", "ticks"),
    [
        ({"warmup": 0.25}, "step", 3),
        ({"warmup_steps": 3}, "step", 3),
        ({"warmup_epochs": 1}, "step", 3),
        ({"warmup_epochs": 0.34}, "step", 1),
        ({"warmup": 0.25}, "epoch", 1),
        ({"warmup_steps": 6}, "epoch", 2),
        ({"warmup_epochs": 2}, "epoch", 2),
    ],
)
def test_a_warmup_in_shares_steps_or_epochs(given: dict[str, float], interval: str, ticks: int) -> None:
    """Of four epochs of three steps."""
    config = SchedulerConfig(name="linear", interval=interval, **given)
    factors = [schedule_factor(config, tick, Span(4, 3, 100)) for tick in range(4)]
    expected = [(tick + 1) / (ticks + 1) for tick in range(ticks)]
    assert factors[: ticks + 1] == pytest.approx([*expected, 1])


@pytest.mark.parametrize("given", [{"warmup_steps": 12}, {"warmup_epochs": 4.5}])
def test_a_warmup_that_leaves_nothing_of_the_phase_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"warmup_(steps=12|epochs=4\.5) is too long: the phase lasts 4 epochs \(12 steps\)\."
    ):
        schedule_factor(SchedulerConfig(name="linear", **given), 0, Span(4, 3, 100))


@pytest.mark.parametrize("name", ["linear", "warmup_cosine", "one_cycle", "constant", "plateau"])
@pytest.mark.parametrize(
    ("given", "interval", "message"),
    [
        ({"warmup": 0.9}, "step", r"\.warmup=0\.9 is too long: the phase lasts 1 epoch \(3 steps\)\. Use a shorter"),
        ({"warmup": 0.6}, "epoch", r"scheduler\.warmup=0\.6 is too long"),
        ({"warmup_steps": 2}, "epoch", r"scheduler\.warmup_steps=2 is too long"),
        ({"warmup_epochs": 0.9}, "step", r"scheduler\.warmup_epochs=0\.9 is too long"),
    ],
)
def test_a_warmup_that_rounds_to_the_whole_phase_is_refused(
    given: dict[str, float], interval: str, message: str, name: str
) -> None:
    """Of one epoch of three steps: the rate would never be the one that was set."""
    kind = PlateauConfig if name == "plateau" else SchedulerConfig
    config = kind(name=name, interval=interval, floor=1.0, **given)
    with pytest.raises(ConfigError, match=message):
        schedule_factor(config, 0, Span(1, 3, 100))


@pytest.mark.parametrize("share", [share / 100 for share in range(0, 100, 7)])
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_whatever_warmup_is_taken_the_rate_that_was_set_is_reached(share: float, interval: str) -> None:
    for epochs, steps in ((1, 1), (1, 3), (2, 3), (5, 2)):
        span, total = Span(epochs, steps, 100), epochs * steps if interval == "step" else epochs
        config = SchedulerConfig(name="linear", warmup=share, interval=interval)
        try:
            factors = [schedule_factor(config, tick, span) for tick in range(total)]
        except ConfigError:
            assert round(share * total) == total
        else:
            assert max(factors) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scheduler.warmup_steps=5"], r"warmup=0\.1 and scheduler\.warmup_steps=5 each set .* all but one to null"),
        (
            ["scheduler.warmup=null", "scheduler.warmup_steps=5", "scheduler.warmup_epochs=1"],
            "warmup_epochs=1 each set",
        ),
        (["scheduler=bit", "scheduler.warmup=0.1"], r"scheduler\.warmup=0\.1 has no effect with scheduler=bit"),
        (["scheduler=bit", "scheduler.floor=0.1"], r"scheduler\.floor=0\.1 has no effect with scheduler=bit"),
        (["scheduler=plateau", "scheduler.factor=1"], r"scheduler\.factor=1\.0 is not allowed"),
        (["scheduler=plateau", "scheduler.patience=-1"], r"scheduler\.patience=-1 is not allowed"),
        (["scheduler.warmup=null", "scheduler.warmup_steps=-1"], r"scheduler\.warmup_steps=-1 is not allowed"),
    ],
)
def test_lengths_that_contradict_are_refused(configure: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(*overrides)


def two_groups() -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1e-1, 1e-6)]
    return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_all_groups_are_scaled_alike_and_end_at_the_floor(interval: str) -> None:
    optimizer = two_groups()
    config = SchedulerConfig(name="warmup_cosine", warmup=0.25, floor=0.5, interval=interval)
    schedule, seen = Schedule(config, optimizer, Span(epochs=4, steps_per_epoch=3, num_samples=100)), []
    for _ in range(4):
        for _ in range(3):
            rates = [group["lr"] for group in optimizer.param_groups]
            assert rates[1] / rates[0] == pytest.approx(1e-5)
            seen.append(rates[0])
            schedule.after_step()
        schedule.after_epoch(0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5e-1, 0.5e-6])
    assert len(set(seen[:3])) == (3 if interval == "step" else 1)


def test_a_plateau_lowers_the_rates_after_its_patience_down_to_the_floor() -> None:
    optimizer = two_groups()
    config = PlateauConfig(name="plateau", floor=0.03, factor=0.1, patience=1)
    schedule = Schedule(config, optimizer, Span(epochs=9, steps_per_epoch=2, num_samples=100))
    factors = []
    for value in (0.5, 0.6, 0.6, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6):
        schedule.after_step()
        schedule.after_epoch(value)
        factors.append(optimizer.param_groups[0]["lr"] / 1e-1)
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.03, 0.03, 0.03])


def test_a_plateau_never_raises_rates_that_a_recovery_has_halved() -> None:
    optimizer = two_groups()
    schedule = Schedule(PlateauConfig(name="plateau", floor=0.4, factor=0.5, patience=0), optimizer, Span(9, 1, 100))
    schedule.after_epoch(0.5)
    seen = []
    for value in (0.9, 0.8, 0.7, 0.95):  # better, worse twice, better
        schedule.restart(0, scale=0.5)
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.after_epoch(value)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125, 0.00625, 0.00625])


def test_nan_is_never_better_on_a_plateau() -> None:
    plateau = Plateau(factor=0.5, patience=0)
    assert [plateau.factor_after(value) for value in (0.5, math.nan, 0.6)] == [1, 0.5, 1]
