"""How a time limit is shared out among phases, and whole runs under one."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Compose
from timed_runs import NO_END, stop_after, timed
from tiny_runs import resumed
from workplaces import Workplace, workplace

from ftexp.errors import InterruptedRunError
from ftexp.run import run
from ftexp.training.run_time import RunTime
from ftexp.training.step import Step
from ftexp.training.time_cuts import log_cuts, seconds_of_cuts
from ftexp.training.time_plan import PhasePlan

__all__ = ["workplace"]


def test_time_is_kept_for_what_follows_the_training(configure: Compose) -> None:
    end = ("recipe.time.end_seconds=2", "recipe.time.end_starts=0.5", "recipe.time.spare=0.1")
    assert timed(configure, *end, num_images=(10, 10, 200)).left == pytest.approx(60 - 2 - 1.5 - 6 - 2)
    averages = timed(configure, "train.wise_ft=[0.5,0.7]")
    assert averages.allows_averages
    assert averages.left == 60 - 2
    assert timed(configure, "train.wise_ft=[0.5,0.7]", per_image=0.1).left == 60


@pytest.mark.parametrize(("limit", "expected"), [("2", 1000.0 + 0.25 * 120), ("null", math.inf)])
def test_the_audit_has_a_part_of_the_time_from_the_start_of_the_command_and_knows_of_ties(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: float
) -> None:
    told = []

    def audit(*given: object, tied: bool) -> None:
        told.append((given[-1], tied))
        raise KeyboardInterrupt

    monkeypatch.setattr("ftexp.preparation.read_data.audit_splits", audit)
    fast = ("runtime.device=cpu", "tracking=none", "audit.features=false", "audit.geometry=false")
    config = configure(f"train.max_minutes={limit}", "recipe.time.audit=0.25", "data.tie_duplicates=true", *fast)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", began=1000.0)
    assert told == [(expected, True)]


def test_phases_share_by_cost_and_a_last_one_without_time_for_its_least_is_left_out(configure: Compose) -> None:
    costs = (
        "recipe.time.head_cost=1",
        "recipe.time.part_cost=2",
        "recipe.time.all_cost=7",
        "recipe.time.min_updates=10",
    )
    plenty = timed(configure, *costs, per_image=0.001)
    assert [plenty.share(number) for number in range(3)] == pytest.approx([6, 60 * 2 / 9, 60])
    # 10 updates of 32 images and a validation of all blocks take 60 s, of the last ones with their cache 14 s.
    scarce = timed(configure, *costs, num_images=(1000, 100, 0), per_image=0.057)
    assert scarce.share(1) == 60
    assert scarce.begin(1) is None
    assert [phase.name for phase in scarce.unbegun] == ["last", "all"]


@pytest.mark.parametrize(("per_image", "begins"), [(0.0120, True), (0.0125, False)])
def test_all_blocks_are_begun_with_time_for_fifty_updates(configure: Compose, per_image: float, begins: bool) -> None:
    """50 of 32 images, each three times the time of scoring one, and a validation of 100: 4,900 times, in 60 s."""
    run_time = timed(configure, num_images=(1000, 100, 0), per_image=per_image)
    assert (run_time.begin(2) is not None) is begins


def test_what_would_take_too_long_is_not_solved_and_not_cached(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = timed(configure, per_image=0.05)  # 55 s for all images
    slow.phases = [replace(slow.phases[0], solved=True), *slow.phases[1:]]
    begun = slow.begin(0)
    assert begun is not None
    phase, config = begun
    assert (phase.solved, config.runtime.cache) == (False, "off")
    assert "trained by steps: to solve it would take about 55 of 60 s" in caplog.text
    assert "caches no activations" in caplog.text
    assert "is too short" not in caplog.text
    timed(configure, num_images=(10, 10, 7000)).begin(0)
    assert "train.max_minutes=1 is too short: 0 s are used, and the end takes about 70 s" in caplog.text
    known = slow.begin(0, knows_features=True)
    assert known is not None
    assert known[0].solved
    quick = timed(configure, per_image=0.001)
    assert quick.begin(0) == (quick.phases[0], quick.config)


def test_a_run_ends_in_time_says_what_was_cut_and_keeps_its_plan(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ticks = seconds_per_update(monkeypatch, 1.0)
    place = workplace.folder / "limited"
    settings = ("stage=partial", "stage.epochs=20", "train.max_minutes=0.5", *NO_END)  # 20 epochs of 4 updates
    run(workplace.begin(*settings), place)
    (entry,) = json.loads((place / "run.json").read_text())["time_plan"]
    assert entry["updates_of_all_epochs"] == 80
    assert 26 <= entry["updates"] == ticks[0] <= 30
    assert "time    " in caplog.text
    assert "cut were 12 of 20 epochs of partial: about 0.8 minutes more would train them" in caplog.text
    assert json.loads((place / "result.json").read_text())["phases"][0]["epochs"] == 8


def test_enough_time_changes_no_number(workplace: Workplace) -> None:
    assert workplace.run("train.max_minutes=60") == workplace.run()


def test_the_time_before_a_resume_counts(configure: Compose) -> None:
    stopped, goes_on = timed(configure), timed(configure)
    stopped.clock = lambda: 25.0
    goes_on.resume(stopped.state() | {"plan": [{"phase": "head"}]})
    assert (goes_on.used(), goes_on.left) == (25.0, 35.0)
    assert goes_on.entries() == [{"phase": "head"}]


def test_a_resumed_run_keeps_the_plan_and_counts_the_time_before(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("stage=partial", "stage.epochs=20", "train.max_minutes=0.5", *NO_END)
    place = workplace.folder / "stopped"
    ticks = seconds_per_update(monkeypatch, 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", stop_after(12, Step.update))
        with pytest.raises(InterruptedRunError):
            run(workplace.begin(*settings), place)
    before = json.loads((place / "run.json").read_text())["time_plan"][0]["updates"]
    run(resumed(workplace.begin(*settings), place), place)
    assert before == json.loads((place / "run.json").read_text())["time_plan"][0]["updates"]
    assert ticks[0] <= 30


def seconds_per_update(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[float]:
    """Let a run's clock tick with its updates alone; the list has the seconds so far."""
    ticks = [0.0]
    update = Step.update

    def ticking(step: Step) -> object:
        ticks[0] += seconds
        return update(step)

    monkeypatch.setattr(Step, "update", ticking)
    made = RunTime.__init__
    monkeypatch.setattr(
        RunTime, "__init__", lambda self, *given: made(self, *given[:5], ticks[0], 0.0, clock=lambda: ticks[0])
    )
    return ticks


def test_what_was_not_begun_counts_by_its_cost(configure: Compose, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limited = timed(configure, "recipe.time.head_cost=1", "recipe.time.all_cost=10")
    head, _, everything = limited.phases
    plan = PhasePlan(lambda: 0.0, int, 60, 10, 60, 1.0, int, int, planned=40, seconds_per_update=0.1)
    limited.plans, limited.unbegun = {head.name: plan}, [everything]
    assert seconds_of_cuts(limited) == pytest.approx(2 * 2 + 10 * 6 * 2)
    log_cuts(limited)
    assert "cut were 2 of 6 epochs of head, all 6 epochs of all: about 2.1 minutes more" in caplog.text


@pytest.mark.slow
def test_half_a_minute_on_the_default_digits_is_kept(tmp_path: Path) -> None:
    began = time.monotonic()
    command = (sys.executable, "-m", "ftexp", "train.max_minutes=0.5", "tracking=none", f"hydra.run.dir={tmp_path}/run")
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert time.monotonic() - began <= 1.05 * 30
    assert ended.returncode == 0, ended.stderr
    assert "time    " in ended.stdout
