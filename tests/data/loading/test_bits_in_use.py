"""A whole run on files of 16 bits of which 12 are used, as cameras and microscopes write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SETTINGS = [
    "data=imagefolder",
    "audit.on_leak=warn",
    "audit.features=false",
    "tracking=none",
    "stage=head",
    "stage.epochs=1",
    "train.batch_size=8",
    "data.image_size=32",
    "model=timm",
    "model.name=resnet10t",
    "model.weights=null",
]


def draw(root: Path, *, bits: int) -> None:
    rng = np.random.default_rng(0)
    for label, level in (("bright", 200), ("dark", 60)):
        (root / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, level, (64, 64)).astype(np.uint8)
            deep = np.round(pixels.astype(np.float64) * (4095 / 255)).astype(np.uint16)
            Image.fromarray(pixels if bits == 8 else deep).save(root / label / f"{number}.png")


def curve(folder: Path, *arguments: str) -> tuple[str, str]:
    run = [sys.executable, "-m", "ftexp", *SETTINGS, *arguments, f"hydra.run.dir={folder / 'run'}"]
    ended = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    kept = [columns.index(name) for name in ("train_loss", "val_loss", "val_accuracy")]
    return "\n".join(",".join(row.split(",")[column] for column in kept) for row in rows), ended.stdout + ended.stderr


@pytest.mark.slow
def test_twelve_bits_in_sixteen_are_seen_as_eight_with_a_white_level(tmp_path: Path) -> None:
    for name, bits in (("eight", 8), ("sixteen", 16), ("level", 16)):
        draw(tmp_path / name / "pictures", bits=bits)
    expected, said = curve(tmp_path / "eight", "data.root=pictures")
    assert "white_level" not in said
    black, said = curve(tmp_path / "sixteen", "data.root=pictures")
    assert "24 images with more than 8 bits per channel: the largest value is" in said
    assert "set data.white_level=4095" in said
    assert black != expected
    same, said = curve(tmp_path / "level", "data.root=pictures", "data.white_level=4095")
    assert same == expected
    assert "nearly black" not in said
