"""Faults from outside a run (full disks, lost files, signals): a clear message, and a run that can be resumed."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

# Files are read again in every epoch, by two processes.
SETTINGS = ["data=imagefolder", "data.root=pictures", "data.image_size=64", "stage=head", "stage.epochs=30"]
READING = ["augment=light", "augment.views=inf", "runtime.pixels=off", "runtime.workers=2", "audit.on_leak=off"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, centre in (("red", (200, 60, 60)), ("green", (60, 200, 60)), ("blue", (60, 60, 200))):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for number in range(60):
            pixels = np.clip(np.array(centre) + rng.normal(0, 50, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.jpg")
    return tmp_path / "pictures"


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of which two epochs are done; killed at the end of the ``with``, should it still be there."""
    command = [sys.executable, "-m", "ftexp", *arguments, "tracking=none"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            end = time.monotonic() + 120
            while epochs(folder) < 2:
                assert run.poll() is None, run.communicate()[1]
                assert time.monotonic() < end
                time.sleep(0.05)
            yield run
        finally:
            run.kill()


def epochs(folder: Path) -> int:
    file = folder / "run" / "metrics.csv"
    return len(list(csv.DictReader(file.read_text().splitlines()))) if file.exists() else 0


def resumed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftexp", "resume=run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


def status(folder: Path) -> str:
    return str(json.loads((folder / "run" / "result.json").read_text())["status"])


def test_a_killed_worker_is_named_and_the_run_goes_on(tmp_path: Path, pictures: Path) -> None:
    with started(tmp_path, *SETTINGS, *READING, "hydra.run.dir=run") as run:
        psutil.Process(run.pid).children()[-1].kill()
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert errors.startswith("ftexp: A process that decodes images has died"), errors
    assert "runtime.workers=0" in errors
    before = epochs(tmp_path)
    ended = resumed(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert status(tmp_path) == "finished"
    assert epochs(tmp_path) == 30 > before >= 2


def test_a_file_that_goes_away_is_named_and_put_back_the_run_goes_on(tmp_path: Path, pictures: Path) -> None:
    victim = pictures / "red" / "07.jpg"
    others = {path: path.read_bytes() for path in pictures.glob("red/*.jpg")}
    with started(tmp_path, *SETTINGS, *READING, "hydra.run.dir=run") as run:
        for path in others:  # the victim may be in the test split, which nobody reads
            path.unlink()
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "there is no such file" in errors
    assert "Traceback" not in errors
    refused = resumed(tmp_path)
    assert refused.returncode == 1
    for path, content in others.items():
        path.write_bytes(content)
    Image.new("RGB", (64, 64), "red").save(victim)
    changed = resumed(tmp_path)
    assert changed.returncode == 1
    assert "not those the run began with" in changed.stderr
    victim.write_bytes(others[victim])
    ended = resumed(tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert status(tmp_path) == "finished"


def test_kept_pixels_need_the_files_no_more(tmp_path: Path, pictures: Path) -> None:
    with started(tmp_path, *SETTINGS, "augment=light", "augment.views=inf", "hydra.run.dir=run") as run:
        for path in pictures.glob("*/*.jpg"):
            path.rename(path.with_suffix(".moved"))
        end = time.monotonic() + 120
        while epochs(tmp_path) < 6 and time.monotonic() < end:
            time.sleep(0.1)
        assert epochs(tmp_path) >= 6
        run.kill()


def test_a_second_run_in_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path, pictures: Path) -> None:
    with started(tmp_path, *SETTINGS, *READING, "hydra.run.dir=run") as run:
        refused = resumed(tmp_path)
        assert refused.returncode == 1
        assert "Another run is using" in refused.stderr
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert status(tmp_path) == "interrupted"
