"""Tests that need a GPU: compiled runs in bf16, images and augmentation on the device."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose
from PIL import Image

from ftexp.config import AugmentConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.preprocessing import Preprocessing
from ftexp.run import run
from ftexp.training.inputs.batches import Batches
from ftexp.training.loop import EpochStats, train_epoch
from ftexp.training.step import Step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def ftexp(folder: Path, *arguments: str) -> tuple[dict[str, object], str]:
    """The result of a run and what it said."""
    command = [sys.executable, "-m", "ftexp", "runtime=cuda", "tracking=none", f"hydra.run.dir={folder}/run"]
    ended = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return json.loads((folder / "run" / "result.json").read_text()), ended.stdout + ended.stderr


# Each compiles for a minute.
@pytest.mark.parametrize(
    ("stage", "mode"),
    [("head", "default"), ("partial", "reduce-overhead"), ("full", "default"), ("full", "reduce-overhead")],
)
def test_a_compiled_run_learns(tmp_path: Path, stage: str, mode: str) -> None:
    compiled = ("runtime.compile=true", f"runtime.compile_mode={mode}")
    result, said = ftexp(tmp_path, f"stage={stage}", "stage.epochs=3", *compiled)
    assert "continuing in eager mode" not in said, "no fall back to eager"
    assert result["best"]["val_accuracy"] > 0.8


@pytest.mark.parametrize("augment", ["none", "light"])
def test_pictures_from_files(tmp_path: Path, augment: str) -> None:
    rng = np.random.default_rng(0)
    for label, brightness in (("dark", 0), ("light", 120)):
        for number in range(40):
            path = tmp_path / "pictures" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(brightness, brightness + 120, (50, 60, 3), np.uint8)).save(path)
    data = ["data=imagefolder", f"data.root={tmp_path / 'pictures'}", "data.image_size=64", "audit.on_leak=off"]
    result, said = ftexp(tmp_path, *data, "stage=full", "stage.epochs=4", "train.batch_size=8", f"augment={augment}")
    assert "decoded as they were first used" in said
    assert result["best"]["val_accuracy"] > 0.8


def test_views_made_on_the_device_are_those_of_the_cpu() -> None:
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (height, 90, 3), np.uint8)) for height in (70, 90, 120)]
    preprocessing = Preprocessing(64, 72, "bicubic", (0.5,) * 3, (0.5,) * 3)
    augment = AugmentConfig(crop_scale=0.3, horizontal_flip=0.5, color_jitter=0.3, erasing=0.5)
    here, there = (BatchAugmentation(preprocessing, augment, 0, torch.device(name)) for name in ("cpu", "cuda"))
    expected = here(images, 1, [0, 1, 2])
    for given in (images, [image.cuda() for image in images]):
        difference = (there(given, 1, [0, 1, 2]).cpu().int() - expected.int()).abs()
        assert difference.max() <= 2, "the device multiplies in TF32"


@pytest.mark.parametrize("stage", ["head", "full"])
def test_steps_do_not_wait_for_the_device(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    waits: dict[int, int] = {}  # in the last epoch, by its number of batches

    def counted(step: Step, batches: Batches, *args: Any, **kwargs: Any) -> EpochStats:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return train_epoch(step, batches, *args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                waits[batches.num_batches] = sum("synchronizing" in str(warning.message) for warning in caught)

    monkeypatch.setattr("ftexp.training.phase_loop.train_epoch", counted)
    for batch_size in (256, 64):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        settings = [f"stage={stage}", "stage.epochs=2", f"train.batch_size={batch_size}", "runtime.device=cuda"]
        run(configure(*settings, "runtime.compile=false", "tracking=none", f"runtime.cache_folder={tmp_path}"), folder)
    few, many = sorted(waits)
    assert waits[many] == waits[few] > 0, "the end of an epoch waits, its steps do not"


def test_views_are_made_without_waiting_for_the_device() -> None:
    images = [torch.full((70, 90, 3), 100 + number, dtype=torch.uint8, device="cuda") for number in range(32)]
    preprocessing = Preprocessing(64, 72, "bicubic", (0.5,) * 3, (0.5,) * 3)
    augment = AugmentConfig(crop_scale=0.3, horizontal_flip=0.5, color_jitter=0.3, policy="rand", erasing=0.5)
    augment_batch = BatchAugmentation(preprocessing, augment, 0, torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = [augment_batch(images, epoch, range(32)) for epoch in range(5)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert {tuple(batch.shape) for batch in made} == {(32, 3, 64, 64)}
