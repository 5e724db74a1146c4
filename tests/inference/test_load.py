"""``ftexp.load`` finds the checkpoint that is meant, and says why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose
from finished_runs import write_finished_run

import ftexp
from ftexp.errors import CheckpointError
from ftexp.inference.calibration import Calibration, checkpoint_digest

PICTURE = np.random.default_rng(0).integers(0, 256, (70, 80, 3)).astype(np.uint8)


@pytest.fixture
def run(tmp_path: Path, configure: Compose) -> Path:
    return write_finished_run(tmp_path / "outputs" / "2026-01-01" / "10-00-00", configure)


def test_a_run_a_checkpoint_and_latest_are_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[2])
    later = run.parents[1] / "2026-01-02" / "failed"
    later.mkdir(parents=True)
    (later / "result.json").write_text(json.dumps({"status": "failed"}))
    answers = [ftexp.load(what).predict(PICTURE)[0] for what in (run, run / "checkpoints" / "best.pt", "latest")]
    assert len({(one.label, one.probability) for one in answers}) == 1
    assert ftexp.load("latest").classes == ("dog", "cat")
    assert Path(str(ftexp.load(run).run)) == run


def test_latest_is_the_run_that_ended_last(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[2])
    other = run.with_name("09-00-00")
    (other / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "result.json", "checkpoints/best.pt"):
        (other / name).write_bytes((run / name).read_bytes())
    os.utime(run / "result.json", (1, 1))
    assert Path(str(ftexp.load("latest").run)).name == "09-00-00"


def test_the_calibration_beside_the_checkpoint_is_used(run: Path) -> None:
    plain = torch.from_numpy(ftexp.load(run).predict(PICTURE)[0].probabilities)
    best = run / "checkpoints" / "best.pt"
    Calibration(checkpoint_digest(best), 9, 4.0, {}, {}).write(best)
    warm = torch.from_numpy(ftexp.load(run).predict(PICTURE)[0].probabilities)
    torch.testing.assert_close(warm, (plain.log() / 4).softmax(0))


@pytest.mark.parametrize(("status", "said"), [("failed", "ended as failed"), ("interrupted", "ended as interrupted")])
def test_a_run_that_did_not_finish_is_refused_with_its_file(run: Path, status: str, said: str) -> None:
    (run / "result.json").write_text(json.dumps({"status": status}))
    with pytest.raises(CheckpointError, match=rf"The run in .* {said}\. The best epoch .*: .*best\.pt"):
        ftexp.load(run)
    assert ftexp.load(run / "checkpoints" / "best.pt").classes == ("dog", "cat")


def test_a_damaged_result_is_named(run: Path) -> None:
    (run / "result.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"result\.json is damaged .* The best epoch .* its file: .*best\.pt\.$"):
        ftexp.load(run)


def test_a_run_that_is_still_going_on_is_refused(run: Path) -> None:
    (run / "result.json").unlink()
    with pytest.raises(CheckpointError, match="has not finished"):
        ftexp.load(run)
    (run / "checkpoints" / "best.pt").unlink()
    with pytest.raises(CheckpointError, match=r"has not finished\.$"):
        ftexp.load(run)


def test_what_is_no_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("hello")
    for what, message in (
        ("nosuch", "nosuch: there is no such run and no such file. Give the folder of a run, or latest"),
        (".", r"\. is not the folder of a run: it has neither run\.json nor checkpoints/best\.pt"),
        ("latest", "No run has finished under outputs/"),
        ("note.txt", r"note\.txt is damaged, or is not a checkpoint of plain data"),
    ):
        with pytest.raises(CheckpointError, match=message):
            ftexp.load(what)


def test_importing_ftexp_imports_no_torch() -> None:
    code = "import sys, ftexp; assert not {'torch', 'numpy', 'hydra'} & set(sys.modules); print(sorted(dir(ftexp)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "'load'" in ended.stdout


def test_a_name_that_ftexp_does_not_have() -> None:
    with pytest.raises(AttributeError, match="module 'ftexp' has no attribute 'lode'"):
        ftexp.lode  # noqa: B018
