"""The seed decides a run: nothing that is optional, cached or cut short changes what it draws."""

from __future__ import annotations

import itertools
import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CommandLine
from tiny_runs import resumed
from torch import nn
from workplaces import SETTINGS, Workplace, curve, draw_noise, workplace

from ftexp.audit.features import PretrainedFeatures
from ftexp.lr_find import find_rates
from ftexp.machine.generators import forked_generators, seed_generators
from ftexp.models.blocks import Block, Network
from ftexp.preparation import prepare
from ftexp.preprocessing import Preprocessing
from ftexp.run import run
from ftexp.training.random_state import random_state, set_random_state
from ftexp.training.step import Step

__all__ = ["workplace"]

CPU = torch.device("cpu")


def numbers() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(()))]


def test_the_numbers_follow_from_the_seeds_alone_and_differ_between_them() -> None:
    with forked_generators(CPU):
        seed_generators(7, 1)
        first = numbers()
        seed_generators(7, 1)
        assert numbers() == first
        for others in ((7,), (7, 2), (7, 1, 1), (8, 1)):
            seed_generators(*others)
            assert not set(numbers()) & set(first)


def test_numbers_drawn_inside_do_not_change_the_generators_outside() -> None:
    with forked_generators(CPU):
        seed_generators(3)
        expected = numbers()
        seed_generators(3)
        with pytest.raises(ZeroDivisionError), forked_generators(CPU):
            numbers().remove(1 / 0)
        assert numbers() == expected


def test_the_audits_network_draws_nothing_from_the_run() -> None:
    with forked_generators(CPU):
        seed_generators(3)
        expected = numbers()
        seed_generators(3)
        PretrainedFeatures(CPU)(np.zeros((1, 64, 64, 3), np.uint8))
        assert numbers() == expected


def test_on_the_cpu_no_gpu_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("CUDA is not in use")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state", "set_rng_state_all", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    with forked_generators(CPU):
        set_random_state(random_state(CPU), CPU)


OPTIONAL = [
    ("audit.on_leak=off",),
    ("audit.features=false",),
    ("runtime.cache=off",),
    ("runtime.pixels=off",),
    ("train.batch_size=auto",),
]
# Seconds each: a process that decodes, a database that is made.
SLOW = [
    ("audit.cache=null",),
    ("train.save_every_minutes=0",),
    ("runtime.pixels=off", "runtime.workers=1"),
    ("tracking=mlflow", "tracking.uri=sqlite:///runs.db", "tracking.system_metrics=true"),
]


def test_cold_or_warm_and_with_or_without_anything_optional_the_curve_is_the_same(workplace: Workplace) -> None:
    expected = workplace.run(warm=True)
    assert workplace.run(warm=True) == expected
    assert workplace.run("runtime.seed=1", warm=True) != expected
    without_audit, *others = OPTIONAL
    assert workplace.run(*without_audit) == expected
    assert workplace.run(*itertools.chain(*others)) == expected, "one of these draws; the slow test below says which"
    tied = workplace.run("data.tie_duplicates=true", warm=True)
    assert workplace.run("data.tie_duplicates=true", "audit.on_leak=off") == tied


def test_a_run_killed_before_its_first_save_ends_like_one_that_was_not(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = workplace.run(warm=True)

    class KilledError(BaseException):
        pass

    def killed(_: Step) -> None:
        raise KilledError

    folder = workplace.folder / "killed"
    folder.mkdir()
    config = workplace.configure(*SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", killed)
        with pytest.raises(KilledError):
            run(config, folder)
    run(resumed(config, folder), folder)
    assert curve(folder) == expected


class Functional(nn.Module):
    """Dropout in its own forward, before the head, as timm's classifiers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.stem(images).mean(dim=(2, 3))
        return self.fc(nn.functional.dropout(pooled, 0.5, training=self.training))


def test_dropout_in_front_of_the_head_is_not_lost_where_activations_are_kept(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    half = (0.5, 0.5, 0.5)
    facts = {"preprocessing": Preprocessing(8, 8, "bilinear", half, half), "name": "tiny", "num_classes": 4}
    monkeypatch.setattr(
        prepare, "build_network", lambda *_: Network(Functional(), [Block("stem", ("stem",))], head="fc", **facts)
    )
    monkeypatch.setattr(prepare, "block_names", lambda _: ("stem", "head"))
    caplog.set_level("INFO", logger="ftexp")
    kept = workplace.run("stage=head", "stage.epochs=2")
    assert "cache   off: tiny draws random numbers, as dropout does, before head" in caplog.text
    assert kept == workplace.run("stage=head", "stage.epochs=2", "runtime.cache=off")


@pytest.fixture
def rates(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    monkeypatch.setattr("ftexp.models.catalogue.build_network", prepare.build_network)
    monkeypatch.setattr("ftexp.models.catalogue.locate_weights", prepare.locate_weights)
    monkeypatch.setattr("ftexp.training.range_test.NUM_STEPS", 6)
    monkeypatch.setattr("ftexp.training.range_test.NUM_SETTLING", 2)

    def find() -> str:
        find_rates(workplace.configure(*SETTINGS, "stage=head"), workplace.folder)
        return (workplace.folder / "lr_find.csv").read_text()

    return find


def test_the_range_test_finds_the_same_rates_cold_and_warm(rates: Callable[[], str]) -> None:
    assert rates() == rates()


REAL = (
    "data=imagefolder",
    "data.root=base",
    "data.image_size=32",
    "audit.on_leak=warn",
    "tracking=none",
    "stage=head",
    "stage.epochs=1",
    "train.batch_size=8",
)


def ftexp(folder: Path, *arguments: str) -> str:
    """A process of its own; returns its output."""
    command = [sys.executable, "-m", "ftexp", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [*OPTIONAL, *SLOW])
def test_no_optional_step_changes_the_curve(workplace: Workplace, overrides: tuple[str, ...]) -> None:
    assert workplace.run(*overrides) == workplace.run()


@pytest.mark.slow
def test_processes_cold_and_warm_give_the_same_scores(tmp_path: Path) -> None:
    draw_noise(tmp_path / "base")
    for name in ("cold", "warm"):
        ftexp(tmp_path, *REAL, f"hydra.run.dir={name}")
    assert curve(tmp_path / "cold") == curve(tmp_path / "warm")


@pytest.mark.slow
def test_the_printed_command_repeats_the_best_trial_of_a_cold_sweep(tmp_path: Path, command_line: CommandLine) -> None:
    draw_noise(tmp_path / "base")
    ftexp(tmp_path, "-m", *REAL, "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=none")
    (summary,) = tmp_path.glob("multirun/*/sweep.json")
    (best,) = json.loads(summary.read_text())["best"]
    _, command = best["command"].split(" && ")
    ended = command_line(*shlex.split(command)[3:], "hydra.run.dir=again")
    assert ended.returncode == 0, ended.stderr
    trial = summary.parent / str(best["trial"])
    assert curve(tmp_path / "again")[0] == curve(trial)[0]
