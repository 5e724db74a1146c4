from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import watch_memory
from PIL import Image

# Measured: 0.01 to 0.09; a tensor of one batch that stays behind in each epoch would be 0.4.
MIB_PER_EPOCH = 0.3


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8), ("test", 2)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(
                    folder / split / label / f"{number}.jpg"
                )


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["stage=full"], ["stage=partial", "augment=light"], ["stage=head"]])
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path: Path, settings: list[str]) -> None:
    epochs, settled = 40, 12
    write_pictures(tmp_path / "pictures")
    data = ["data=imagefolder", f"data.root={tmp_path / 'pictures'}", "data.image_size=32", "train.batch_size=32"]
    machine = ["runtime.device=cpu", "tracking=none", "audit.on_leak=off", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "ftexp", *data, *machine, *settings, f"stage.epochs={epochs}"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.csv"
    resident = watch_memory(process, lambda: metrics.read_text().count("\n") - 1 if metrics.exists() else 0)
    seen = [done for done in resident if settled <= done < epochs]  # at the end it draws
    first, last = min(seen), max(seen)
    assert last - first > 10, resident
    assert (resident[last] - resident[first]) / (last - first) < MIB_PER_EPOCH, resident
