"""A run that is interrupted anywhere and resumed ends exactly like one that was never interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Compose
from resumable_runs import SMALL, VARIANTS, run

from ftexp.config import Config
from ftexp.errors import CheckpointError, InterruptedRunError
from ftexp.training import phase_loop
from ftexp.training.checkpoints import checkpoint as checkpoint_module
from ftexp.training.checkpoints.checkpoint import LAST, PREVIOUS, load_checkpoint, read_last
from ftexp.training.fit import Fit
from ftexp.training.interruption import StopSignals
from ftexp.training.step import Step

pytestmark = pytest.mark.usefixtures("no_pictures")

SAVE_SELDOM, SAVE_OFTEN = ("train.save_every_minutes=null",), ("train.save_every_minutes=0",)
TIMES = ("seconds", "images_per_second")


class KilledError(BaseException):
    """Stands for kill -9: nothing in the project catches it."""


def everything(fit: Fit, folder: Path) -> tuple[Any, ...]:
    """All that has to be the same: the curves, the phases and their verdicts, the best epoch, the weights; no times."""
    history = [{k: v for k, v in asdict(record).items() if k not in TIMES} for record in fit.history]
    report = json.loads((folder / "report.json").read_text())
    for entry in report["phases"]:
        entry.pop("seconds", None)  # a skipped phase has none
    assert fit.best is not None
    weights = load_checkpoint(folder / "checkpoints" / "best.pt")["model"]
    bits = {name: tensor.contiguous().numpy().tobytes() for name, tensor in weights.items()}
    return history, report, fit.best.record.epoch, fit.best.alpha, fit.best.scores.loss, bits


def deadly(call: Callable[..., object], countdown: list[int]) -> Callable[..., object]:
    def counted(*args: object, **kwargs: object) -> object:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise KilledError
        return call(*args, **kwargs)

    return counted


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """``kill_at[0] = n``: die before the nth thing that touches a disk, a weight or an image."""
    countdown = [-1]
    monkeypatch.setattr(os, "replace", deadly(os.replace, countdown))
    monkeypatch.setattr(os, "fsync", deadly(os.fsync, countdown))
    monkeypatch.setattr(Step, "update", deadly(Step.update, countdown))
    monkeypatch.setattr(phase_loop, "evaluate", deadly(phase_loop.evaluate, countdown))
    yield countdown
    countdown[0] = -1


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_anywhere_it_ends_the_same(configure: Compose, tmp_path: Path, kill_at: list[int], variant: str) -> None:
    expected = everything(run(configure(*VARIANTS[variant], *SAVE_SELDOM), tmp_path / "whole"), tmp_path / "whole")
    happened = -1 - kill_at[0]
    for saves, latest in ((SAVE_SELDOM, happened // 4), (SAVE_OFTEN, happened * 5 // 8)):
        config, folder, kills = configure(*VARIANTS[variant], *saves), tmp_path / saves[0], 0
        rng = random.Random(f"{variant}{saves}")
        while True:
            # At least past the first file of an epoch, else it would begin for ever with the same step; some six times.
            kill_at[0] = rng.randint(14, max(32, latest))
            try:
                ended = run(config, folder)
            except KilledError:
                kills += 1
                continue
            break
        kill_at[0] = -1
        assert kills >= 1
        assert everything(ended, folder) == expected, saves


def test_phases_that_were_skipped_are_skipped_again(configure: Compose, tmp_path: Path) -> None:
    """A run that was killed after its last epoch, with phases that cannot gain so much as the margin."""
    config = configure(*SMALL, "stage=staged", "stage.epochs=2", "stage.margin=1")
    expected = everything(run(config, tmp_path / "run"), tmp_path / "run")
    assert [entry["verdict"] for entry in expected[1]["phases"]] == ["kept", "skipped", "skipped"]
    assert everything(run(config, tmp_path / "run"), tmp_path / "run") == expected


def test_ctrl_c_finishes_the_step_and_the_rest_follows_exactly(configure: Compose, tmp_path: Path) -> None:
    config = configure(*VARIANTS["staged"])
    expected = everything(run(config, tmp_path / "whole"), tmp_path / "whole")
    folder, steps = tmp_path / "stopped", []
    original = Step.update

    def update(self: Step) -> torch.Tensor:
        norm = original(self)
        steps.append(norm)
        if len(steps) in (2, 7):
            os.kill(os.getpid(), signal.SIGTERM if len(steps) == 2 else signal.SIGINT)
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "update", update)
        for number in (signal.SIGTERM, signal.SIGINT):
            with StopSignals() as stop, pytest.raises(InterruptedRunError, match=f"signal {number:d}"):
                run(config, folder, stop)
    assert len(steps) == 7
    assert load_checkpoint(folder / "checkpoints" / LAST)["phase"]["sums"]["norms"]
    assert everything(run(config, folder), folder) == expected


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_last_file_is_noticed_and_the_one_before_is_used(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    config = configure(*VARIANTS["head"])
    countdown = [0]
    monkeypatch.setattr(Step, "update", deadly(Step.update, countdown))
    expected = everything(run(config, tmp_path / "whole"), tmp_path / "whole")
    folder, countdown[0] = tmp_path / "killed", -countdown[0]  # it dies before its last update
    with pytest.raises(KilledError):
        run(config, folder)
    last = folder / "checkpoints" / LAST
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 16
    last.write_bytes({"truncated": content[:-300], "flipped": content, "empty": b""}[damage])
    assert everything(run(config, folder), folder) == expected
    assert any("last.pt is damaged" in message and "before it is used" in message for message in caplog.messages)


def test_with_all_files_damaged_it_says_so(tmp_path: Path) -> None:
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"PK nothing")
    with pytest.raises(
        CheckpointError, match=r"its checkpoints are damaged:\n.*last.pt is damaged.*\n.*previous.pt is"
    ):
        read_last(tmp_path)


def test_a_full_disk_is_a_clear_error_and_the_earlier_file_is_whole(configure: Compose, tmp_path: Path) -> None:
    config = configure(*VARIANTS["head"])
    run(config, tmp_path / "run")
    last = tmp_path / "run" / "checkpoints" / LAST
    before, content = last.read_bytes(), load_checkpoint(last)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(
            CheckpointError, match=r"fresh.pt cannot be written: File too large\. .*Free some disk space"
        ):
            checkpoint_module.write_last(last.parent, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert last.read_bytes() == before
    assert not list(last.parent.glob("*.tmp"))


def test_checkpoints_of_another_run_are_not_resumed(configure: Compose, tmp_path: Path, kill_at: list[int]) -> None:
    config, folder = configure(*VARIANTS["head"]), tmp_path / "run"
    kill_at[0] = 30
    with pytest.raises(KilledError):
        run(config, folder, run_id="first")
    kill_at[0] = -1
    for name in ("second", ""):
        with pytest.raises(CheckpointError, match=r"were not written by the run of the run.json beside them"):
            run(config, folder, run_id=name)
    assert run(config, folder, run_id="first").best is not None
    assert load_checkpoint(folder / "checkpoints" / "best.pt")["run_id"] == "first"


def _in_child(config: Config, folder: Path) -> None:
    torch.set_num_threads(1)
    run(config, folder)
    (folder / "done").touch()


@pytest.mark.slow
def test_kill_9_at_fifty_random_moments(configure: Compose, tmp_path: Path) -> None:
    """Real signals at real moments, so that nothing the other tests did not think of is left out."""
    config = configure(*VARIANTS["staged"], "train.save_every_minutes=0")
    expected = everything(run(config, tmp_path / "whole"), tmp_path / "whole")
    context, rng, kills, rounds = multiprocessing.get_context("fork"), random.Random(0), 0, 0
    while kills < 50:
        rounds += 1
        folder = tmp_path / str(rounds)
        while not (folder / "done").exists():
            child = context.Process(target=_in_child, args=(config, folder))
            child.start()
            child.join(rng.uniform(0.05, 1.5))
            if child.is_alive():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
            child.join()
        assert everything(run(config, folder), folder) == expected
