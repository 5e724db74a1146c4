"""The range test as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CommandLine

from ftexp.cli.command_line import run_command
from ftexp.lr_find import job
from ftexp.preparation.head_depth import Depth


@pytest.mark.slow
def test_it_ends_with_the_rates_to_paste(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ftexp.lr_find", "tracking=none", "audit.features=false", "hydra.run.dir=out"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    last = (ended.stdout + ended.stderr).strip().splitlines()[-1]
    rates = re.search(r"optimizer\.head_lr=(\S+) optimizer\.backbone_lr=(\S+)", last)
    assert rates is not None, last
    assert 1e-4 < float(rates[1]) < 1e-1
    assert 1e-6 < float(rates[2]) < 1e-2
    assert {"lr_find.csv", "lr_find.png", "splits.csv"} <= {file.name for file in (tmp_path / "out").iterdir()}


def test_a_mistake_ends_as_one_message(command_line: CommandLine) -> None:
    ended = command_line("stage.epochs=0", entry=lambda: run_command(job))
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: stage.epochs=0 is not allowed")


def test_memory_that_runs_out_ends_as_one_message(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(
        "ftexp.preparation.read_data.read_data", lambda *_, **__: SimpleNamespace(classes=("a", "b"), train=[0] * 8)
    )
    monkeypatch.setattr("ftexp.training.range_test.find_ranges", no_room)
    ended = command_line("runtime.device=cpu", "tracking=none", "stage=full", entry=lambda: run_command(job))
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: Out of memory on cpu with train.batch_size=32. Start again with")


@pytest.mark.parametrize(
    ("stage", "solved"),
    [("stage=auto", [True, False, False]), ("stage=staged", [False] * 3), ("stage=head", [False])],
)
def test_a_head_that_the_run_solves_first_is_solved_here_too(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, stage: str, solved: list[bool]
) -> None:
    """That of stage=head alone is not: with a suggested rate in its command, the run trains it by steps."""
    tested: list[list[bool]] = []
    splits = SimpleNamespace(classes=("a", "b"), train=[0] * 8)
    monkeypatch.setattr("ftexp.preparation.read_data.read_data", lambda *_, **__: splits)
    monkeypatch.setattr("ftexp.preparation.head_depth.settle_depth", lambda _, network, *__: Depth(network))
    monkeypatch.setattr(
        "ftexp.training.range_test.find_ranges",
        lambda *given: tested.append([phase.solved for phase in given[3]]),
    )
    monkeypatch.setattr("ftexp.report.range_plot.report_ranges", lambda *_: None)
    settings = ("runtime.device=cpu", "tracking=none", "train.batch_size=4", stage)
    ended = command_line(*settings, entry=lambda: run_command(job))
    assert ended.returncode == 0
    assert tested == [solved]
    assert ("lr_find head is solved first, as in the run" in ended.stdout) is solved[0]
