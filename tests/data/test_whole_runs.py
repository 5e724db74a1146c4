"""Whole runs on folders as users have them: all images are used, or the log says which are not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

QUICK = (
    "data=imagefolder audit.on_leak=warn tracking=none stage=head stage.epochs=1 train.batch_size=8 data.image_size=32"
)


def draw(folder: Path, count: int, seed: int, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        noise = rng.integers(0, 100, (64, 64, 3), np.uint8) + np.uint8(20 * (seed % 7))
        Image.fromarray(noise).save(folder / f"{number}{suffix}", "jpeg")


def run(folder: Path, *overrides: str) -> tuple[int, str, list[dict[str, str]]]:
    """Exit code, everything printed, and the rows of splits.csv."""
    call = [sys.executable, "-m", "ftexp", *QUICK.split(), "hydra.run.dir=outputs/day/time", *overrides]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    table = folder / "outputs" / "day" / "time" / "splits.csv"
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8"))) if table.exists() else []
    return done.returncode, done.stdout + done.stderr, rows


def test_splits_of_other_names_and_pictures_of_an_earlier_run(tmp_path: Path) -> None:
    for seed, split in enumerate(("Training", "Testing")):
        for label in ("cat", "dog"):
            draw(tmp_path / split / label, 12, 2 * seed + (label == "dog"), ".JPG")
    draw(tmp_path / "outputs" / "earlier" / "time", 4, 9)
    (tmp_path / "outputs" / "earlier" / "time" / "run.json").write_text("{}")
    code, said, rows = run(tmp_path, "data.root=.")
    assert code == 0, said
    assert "Traceback" not in said
    assert Counter((row["path"].split("/")[0], row["split"] == "test") for row in rows) == {
        ("Training", False): 24,
        ("Testing", True): 24,
    }
    assert {row["label"] for row in rows} == {"cat", "dog"}
    assert "the folders are splits: Training is train, Testing is test" in said
    assert "are not read as data: outputs" in said


def test_an_empty_root_and_folders_that_could_be_either_end_in_one_message(tmp_path: Path) -> None:
    for seed, year in enumerate(("2020", "2021")):
        for label in ("cat", "dog"):
            draw(tmp_path / "data" / year / label, 3, 2 * seed + (label == "dog"))
    code, said, _ = run(tmp_path, "data.root=")
    assert (code, said.count("\n")) == (1, 1), said
    assert "data.root is empty" in said
    code, said, _ = run(tmp_path, "data.root=data")
    assert code == 1
    assert "contains the same folders" in said
    assert "Traceback" not in said


def test_linked_folders_pipes_and_a_class_that_cannot_be_read(tmp_path: Path) -> None:
    for seed, label in enumerate(("cat", "dog", "owl")):
        draw(tmp_path / "data" / label, 4, seed)
        draw(tmp_path / "store" / label, 8, seed + 3)
        (tmp_path / "data" / label / "more").symlink_to(tmp_path / "store" / label)
        (tmp_path / "data" / label / "loop").symlink_to("..")
    (tmp_path / "data" / "phone").mkdir()
    for number in range(5):
        (tmp_path / "data" / "phone" / f"{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    os.mkfifo(tmp_path / "data" / "cat" / "pipe.jpg")
    code, said, rows = run(tmp_path, "data.root=data")
    assert code == 1
    assert "5 of 41 files cannot be read as images" in said
    assert "Traceback" not in said
    code, said, rows = run(tmp_path, "data.root=data", "data.on_bad_image=skip", "hydra.run.dir=outputs/day/time")
    assert code == 0, said
    assert Counter(row["label"] for row in rows) == {"cat": 12, "dog": 12, "owl": 12}
    assert "CLASS 'phone' IS LOST: all of its 5 images are bad" in said
    assert "3 links to folders that are read already" in said
    assert "1 pipes, sockets or devices are not read" in said
