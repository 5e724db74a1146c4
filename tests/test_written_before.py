"""Files that an earlier version wrote: run folders, checkpoints, sweeps and packaged models keep loading and resuming.

``assets/written_by_0.1.0.tar.xz`` holds, as ftexp 0.1.0 left them on a CPU: a finished run, a run that Ctrl-C stopped,
a sweep of two trials, a packaged model, and what the stopped run's curve became when 0.1.0 itself resumed it. The
network is timm's test_convnext with weights of few distinct values, so that the archive stays small.
"""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandLine
from PIL import Image

ARCHIVE = Path(__file__).parent / "assets" / "written_by_0.1.0.tar.xz"
SETTINGS = [
    "data=imagefolder",
    "data.root=pictures",
    "audit.on_leak=warn",
    "audit.features=false",
    "audit.cache=null",
    "model=timm",
    "model.name=test_convnext.r160_in1k",
    "model.weights=coarse.pth",
    "train.batch_size=8",
    "data.image_size=32",
    "runtime.device=cpu",
    "runtime.cache_folder=cache",
    "optimizer.head_lr=0.05",
    "stage=head",
    "tracking=none",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def curve(file: Path) -> list[dict[str, float]]:
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    return [{name: float(row[name]) for name in ("train_loss", "val_loss", "val_accuracy", "lr_head")} for row in rows]


def test_a_run_that_was_stopped_is_resumed_and_ends_as_it_would_have(folder: Path, command_line: CommandLine) -> None:
    ended = command_line("resume=interrupted")
    assert ended.returncode == 0, ended.stderr
    now, then = curve(folder / "interrupted" / "metrics.csv"), curve(folder / "expected_metrics.csv")
    assert len(now) == len(then) == 12
    for row, expected in zip(now, then, strict=True):
        assert row == pytest.approx(expected, abs=1e-4)
    assert json.loads((folder / "interrupted" / "result.json").read_text())["test"]["accuracy"] == 1.0


def test_its_checkpoint_starts_a_new_run(folder: Path, command_line: CommandLine) -> None:
    settings = [setting for setting in SETTINGS if not setting.startswith("model.weights")]
    ended = command_line(*settings, "model.weights=finished/checkpoints/best.pt", "stage.epochs=1", "hydra.run.dir=new")
    assert ended.returncode == 0, ended.stderr
    assert curve(folder / "new" / "metrics.csv")[0]["train_loss"] < 0.4, "the head starts where it had ended"


def test_a_finished_run_is_not_resumed(folder: Path, command_line: CommandLine) -> None:
    ended = command_line("resume=finished")
    assert ended.returncode == 1
    assert "finished" in ended.stderr


def test_a_sweep_goes_on_with_its_study(folder: Path, command_line: CommandLine) -> None:
    ended = command_line(
        *("-m", *SETTINGS, "stage.epochs=2"), "hydra.sweeper.n_trials=3", "hydra.sweeper.study_name=kept"
    )
    assert ended.returncode == 0, ended.stderr
    with (folder / "multirun" / "kept" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["state"]) for row in rows] == [(str(n), "COMPLETE") for n in range(3)]


def test_a_packaged_model_answers(folder: Path) -> None:
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder / "model"))
    bright = Image.fromarray(np.full((32, 32, 3), 180, np.uint8))
    bright.save(folder / "x.png")
    answer = model.predict(pd.DataFrame({"image": [str(folder / "x.png"), str(folder / "pictures/dark/0.png")]}))
    assert list(answer["label"]) == ["bright", "dark"]
