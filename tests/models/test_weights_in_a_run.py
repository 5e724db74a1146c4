"""``model.weights`` in whole runs, each in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import draw_pictures

pytestmark = pytest.mark.slow

TINY = ("model=timm", "model.name=test_efficientnet", "data.image_size=32", "stage=head", "stage.epochs=1")
QUIET = ("data=imagefolder", "data.root=pictures", "tracking=none", "audit.on_leak=warn", "train.batch_size=8")


def ftexp(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftexp", *TINY, *QUIET, *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of ``dark`` and ``light`` lie, and the folder ``first`` of a run on them."""
    folder = tmp_path_factory.mktemp("started")
    draw_pictures(folder / "pictures")
    ended = ftexp(folder, "model.weights=null", "hydra.run.dir=first")
    assert ended.returncode == 0, ended.stderr
    assert "weights null: the network starts from random weights" in ended.stdout + ended.stderr
    return folder


@pytest.mark.parametrize("given", ["first", "first/checkpoints/best.pt"])
def test_a_run_starts_from_another_ones_weights_with_the_rows_of_the_classes_they_share(
    started: Path, tmp_path: Path, given: str
) -> None:
    """By its number, ``ape`` would get the row of ``dark``."""
    draw_pictures(tmp_path / "pictures")
    (tmp_path / "pictures" / "light").rename(tmp_path / "pictures" / "ape")
    weights = f"model.weights={started / given}"
    ended = ftexp(tmp_path, weights, "hydra.run.dir=second", "optimizer.head_lr=1e-12")
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert f"weights {started}/first/checkpoints/best.pt: " in said
    assert "keeps its rows for dark, matched by class name; new rows for ape; left out: light" in said
    files = (started / "first" / "checkpoints" / "best.pt", tmp_path / "second" / "checkpoints" / "best.pt")
    old, new = (torch.load(file, weights_only=True) for file in files)
    assert (old["class_to_idx"], new["class_to_idx"]) == ({"dark": 0, "light": 1}, {"ape": 0, "dark": 1})
    before, after = (content["model"]["classifier.weight"] for content in (old, new))
    assert torch.allclose(before[0], after[1], atol=1e-6)
    assert not torch.allclose(before[0], after[0], atol=1e-3)


@pytest.mark.parametrize("given", ["nosuch.ckpt", "nosuch"])
def test_weights_that_are_not_there_end_the_run_at_once(started: Path, tmp_path: Path, given: str) -> None:
    ended = ftexp(started, f"model.weights={given}", f"hydra.run.dir={tmp_path}/second")
    assert ended.returncode == 1
    assert f"model.weights={given}" in ended.stderr
    assert "there is no such file" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "  epoch " not in ended.stdout
    assert not (tmp_path / "second" / "checkpoints").exists()


@pytest.mark.parametrize("name", ["model_best.pth.tar", "plain"])
def test_checkpoints_as_others_write_them_are_trained_from(started: Path, tmp_path: Path, name: str) -> None:
    state = torch.load(started / "first" / "checkpoints" / "best.pt", weights_only=True)["model"]
    args = argparse.Namespace(model="test_efficientnet", data=Path("x"))
    lightning = {f"model.{key}": tensor for key, tensor in state.items()} | {"criterion.weight": torch.ones(2)}
    torch.save({"epoch": 3, "args": args, "state_dict": lightning}, started / name)
    ended = ftexp(started, f"model.weights={name}", f"hydra.run.dir={tmp_path}/second")
    assert ended.returncode == 0, ended.stderr
    said = ended.stdout + ended.stderr
    assert f"weights {name}: " in said
    assert "is newly initialised: the file does not name its classes; left out: 1 tensors of other parts" in said


def test_a_file_with_nan_ends_the_run_with_the_tensors_name(started: Path, tmp_path: Path) -> None:
    content = torch.load(started / "first" / "checkpoints" / "best.pt", weights_only=True)
    content["model"]["conv_stem.weight"][0, 0, 0, 0] = torch.nan
    torch.save(content, started / "nan.pt")
    ended = ftexp(started, "model.weights=nan.pt", f"hydra.run.dir={tmp_path}/second")
    assert ended.returncode == 1
    assert "nan.pt: conv_stem.weight has NaN (1 of " in ended.stderr
    assert "Traceback" not in ended.stderr
