"""A folder where runs of a tiny network are begun, for tests of whole runs."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose, TinyNet
from PIL import Image

from ftexp.config import Config
from ftexp.evaluation import intervals
from ftexp.models.blocks import Block, Network
from ftexp.preparation import prepare
from ftexp.preprocessing import Preprocessing
from ftexp.report import recorder
from ftexp.run import run
from ftexp.training import batch_size
from ftexp.training.inputs.input_source import InputSource

BLOCKS = [Block("stem", ("stem",)), Block("body", ("body", "token"))]
# Of TinyNet, which has dropout in its body; three phases, so that what the later ones draw counts, too.
SETTINGS = (
    "data=imagefolder",
    "data.root=base",
    "tracking=none",
    "runtime.device=cpu",
    "runtime.workers=0",
    "train.batch_size=4",
    "audit.on_leak=warn",
    "stage=staged",
    "stage.epochs=1",
    "stage.gate=off",
)

Curve = tuple[object, ...]


def draw_noise(root: Path, of_class: int = 6) -> None:
    """Four classes of a few images each, of 64 px: large enough for the audit's network to look at them."""
    rng = np.random.default_rng(0)
    for name, centre in (("ape", (200, 60, 60)), ("bee", (60, 200, 60)), ("cow", (60, 60, 200)), ("emu", (90, 90, 0))):
        (root / name).mkdir(parents=True)
        for i in range(of_class):
            pixels = np.clip(np.array(centre) + rng.normal(0, 60, (64, 64, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")


def curve(folder: Path) -> Curve:
    """The losses of all epochs and the test score, to the last bit."""
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [(row["train_loss"], row["val_loss"]) for row in csv.DictReader(file)]
    test = json.loads((folder / "result.json").read_text())["test"]
    return losses, test and (test["loss"], test["accuracy"])


def drawing(call: Callable[..., object]) -> Callable[..., object]:
    """The same, but it also draws, and every time another number of numbers: as helpers may that are built or not."""
    count = itertools.count(1)

    def wrapped(*args: object, **kwargs: object) -> object:
        result = call(*args, **kwargs)
        torch.rand(next(count))
        return result

    return wrapped


class Workplace:
    """A folder with images, where runs of a tiny network are begun."""

    def __init__(self, folder: Path, configure: Compose) -> None:
        self.folder = folder
        self.configure = configure
        self._count = 0

    def run(self, *overrides: str, warm: bool = False) -> Curve:
        self._count += 1
        place = self.folder / f"run{self._count}"
        place.mkdir()
        name = "warm" if warm else str(self._count)
        caches = (f"audit.cache={self.folder / name}.sqlite", f"runtime.cache_folder={self.folder / name}.cache")
        run(self.begin(*caches, *overrides), place)
        return curve(place)

    def begin(self, *overrides: str) -> Config:
        given = {override.partition("=")[0] for override in overrides}
        return self.configure(*(text for text in SETTINGS if text.partition("=")[0] not in given), *overrides)


@pytest.fixture
def workplace(configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    def build(*_: object) -> Network:
        half = (0.5, 0.5, 0.5)
        preprocessing = Preprocessing(8, 8, "bilinear", half, half)
        return Network(TinyNet(), BLOCKS, head="fc", preprocessing=preprocessing, name="tiny", num_classes=4)

    monkeypatch.chdir(tmp_path)
    for name in ("plot_plan", "plot_curves", "plot_confusion_matrix"):  # half of the time of a run
        monkeypatch.setattr(recorder, name, lambda *_: None)
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 10)
    monkeypatch.setattr(prepare, "read_recorded", drawing(prepare.read_recorded))
    monkeypatch.setattr(InputSource, "for_phase", drawing(InputSource.for_phase))
    monkeypatch.setattr(prepare, "block_names", lambda _: ("stem", "body", "head"))
    monkeypatch.setattr(prepare, "locate_weights", lambda _: None)
    monkeypatch.setattr(prepare, "build_network", build)
    monkeypatch.setattr(batch_size, "MIN_UPDATES_PER_EPOCH", 4)  # train.batch_size=auto gives 4 of 16 images
    draw_noise(tmp_path / "base")
    return Workplace(tmp_path, configure)
