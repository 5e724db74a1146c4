"""How a time limit is shared out among phases, and whole runs under one."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from timed_runs import NO_END, stop_after, timed
from tiny_runs import SMALL, colours, resumed
from workplaces import Workplace, workplace

from ftexp import run as run_module
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import InterruptedRunError
from ftexp.evaluation.history import EpochRecord
from ftexp.machine.distributed import Ranks
from ftexp.run import run
from ftexp.training import run_time as run_time_module
from ftexp.training.begin_in_time import begin_in_time
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.fit import Fit
from ftexp.training.frozen_head import FrozenHead
from ftexp.training.inputs.features import compute_features
from ftexp.training.inputs.input_source import InputSource
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

    def audit(*given: object, tied: bool, **_: object) -> None:
        told.append((given[-1], tied))
        raise KeyboardInterrupt

    monkeypatch.setattr("ftexp.preparation.read_data.audit_splits", audit)
    fast = ("runtime.device=cpu", "tracking=none", "audit.features=false", "audit.geometry=false")
    config = configure(f"train.max_minutes={limit}", "recipe.time.audit=0.25", "data.tie_duplicates=true", *fast)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", began=1000.0)
    assert told == [(expected, True)]


def test_phases_share_by_cost_and_a_last_one_without_time_for_its_least_is_left_out(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
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
    assert begin_in_time(scarce, 1) is None
    assert [phase.name for phase in scarce.unbegun] == ["last", "all"]
    assert "last is not begun: it would take at least 68.2 s, and only 60.0 s are left" in caplog.text
    assert begin_in_time(scarce, 1, {"plan": {}}) is not None, "the one in which a run is resumed has to end"


@pytest.mark.parametrize(("per_image", "begins"), [(0.0120, True), (0.0125, False)])
def test_all_blocks_are_begun_with_time_for_fifty_updates(configure: Compose, per_image: float, begins: bool) -> None:
    """50 of 32 images, each three times the time of scoring one, and a validation of 100: 4,900 times, in 60 s."""
    run_time = timed(configure, num_images=(1000, 100, 0), per_image=per_image)
    assert (begin_in_time(run_time, 2) is not None) is begins


def test_what_would_take_too_long_is_not_solved_and_not_cached(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = timed(configure, per_image=0.05)  # 55 s for all images
    solved = replace(slow.phases[0], solved=True, epochs=1)
    slow.phases = [solved, *slow.phases[1:]]
    known = begin_in_time(slow, 0, knows_features=True)
    assert known == (solved, slow.config)
    begun = begin_in_time(slow, 0)
    assert begun is not None
    phase, config = begun
    assert (phase.solved, config.runtime.cache) == (False, "off")
    assert phase == slow.phases[0], "its share of the time is that of all its epochs"
    assert phase.epochs == 6
    assert "trained by steps: to solve it would take about 55 of 60 s" in caplog.text
    assert "caches no activations" in caplog.text
    assert "is too short" not in caplog.text
    begin_in_time(timed(configure, num_images=(10, 10, 7000)), 0)
    assert "train.max_minutes=1 is too short: 0 s are used, and the end takes about 70 s" in caplog.text
    quick = timed(configure, per_image=0.001)
    assert begin_in_time(quick, 0) == (quick.phases[0], quick.config)


@pytest.mark.parametrize(("plan", "per_image"), [(None, 0.05), ({}, 0.001)])
def test_a_resumed_phase_is_solved_only_if_it_was_before(
    configure: Compose, plan: dict[str, Any] | None, per_image: float
) -> None:
    """Whatever the time is now: its saved state fits nothing else."""
    run_time = timed(configure, per_image=per_image)
    run_time.phases = [replace(run_time.phases[0], solved=True, epochs=1), *run_time.phases[1:]]
    begun = begin_in_time(run_time, 0, {"plan": plan})
    assert begun is not None
    assert (begun[0].solved, begun[0].epochs) == ((True, 1) if plan is None else (False, 6))


def test_a_start_is_solved_without_time_for_a_pass_where_its_features_are_known(
    configure: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow = timed(configure, *SMALL, "head.init=solved", per_image=0.05)
    splits, first = Splits(colours(16, 1), colours(8, 2), TestSplit([]), ("b", "g", "r", "x")), slow.phases[0]
    head = FrozenHead(slow.network, slow.config, slow.runtime, splits)
    assert head.solve_start(first, slow) is None
    line = "head    not solved at the start: no time for a pass over all images (train.max_minutes)"
    assert caplog.messages[-1] == line
    with InputSource(slow.config, slow.network, splits, slow.runtime) as source:
        known = compute_features(source, slow.network, first, slow.runtime)
    assert replace(head, known=known).solve_start(first, slow) is not None
    slow.left_out_images = True  # so that there is time for the others
    assert head.solve_start(first, slow) is not None


class SecondRank(Ranks):
    """The second of two processes; the main one has measured half a second."""

    def broadcast(self, make: Callable[[], Any]) -> Any:
        return 0.5


def test_all_processes_plan_by_the_time_that_the_main_one_measured(
    configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_time = timed(configure)
    monkeypatch.setattr(run_time_module, "seconds_per_image", lambda *_: 0.001)
    source = InputSource(
        run_time.config, run_time.network, Splits([], [], TestSplit([]), tuple("bgrx")), run_time.runtime
    )
    run_time.runtime = replace(run_time.runtime, ranks=SecondRank(1, 2))
    run_time.measure(source, colours(8, 1))
    assert run_time.per_image == 0.5


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


class StopsIn:
    """Interrupts a run after an epoch of a phase."""

    def __init__(self, phase: str) -> None:
        self.phase, self.now = phase, ""

    def __call__(self, record: EpochRecord) -> None:
        self.now = record.phase

    def before_epoch(self) -> None:
        if self.now == self.phase:
            raise InterruptedRunError(15)


def test_a_run_resumed_in_a_phase_without_time_ends_it_and_has_its_best_weights(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = seconds_per_update(monkeypatch, 1.0)
    monkeypatch.setattr(run_time_module, "seconds_per_image", lambda *_: 0.001)
    place = workplace.folder / "stopped"
    config = workplace.begin("stage.epochs=2", "train.max_minutes=0.5", "train.ema=0.9", *NO_END)
    with pytest.raises(InterruptedRunError):
        run(config, place, observers=(StopsIn("all"),))
    begun, resume, score = ticks[0], RunTime.resume, run_module.score_test_split
    monkeypatch.setattr(RunTime, "resume", lambda self, state: resume(self, {**state, "seconds": 30.0}))
    scored: dict[str, torch.Tensor] = {}

    def scoring(fit: Fit, *given: Any) -> Any:
        scored.update({name: tensor.clone() for name, tensor in fit.network.module.state_dict().items()})
        return score(fit, *given)

    monkeypatch.setattr(run_module, "score_test_split", scoring)
    result = run(resumed(config, place), place)
    best = load_checkpoint(place / "checkpoints" / "best.pt")
    assert ticks[0] - begun == 1, "one update tells that the time is over"
    assert best["epoch"] == result.best.epoch
    assert result.verdicts == {"head": "kept", "last": "kept", "all": "kept"}
    assert all(torch.equal(scored[name], tensor) for name, tensor in best["model"].items())


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
