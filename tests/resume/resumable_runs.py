"""Runs of a tiny network that can be resumed, of every kind, and the splits of a run that only has an identity."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tiny_runs import NAMES, fresh_network, resumed

from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.finetune.phases import plan_phases
from ftexp.machine.runtime import prepare_runtime
from ftexp.report.recorder import Recorder
from ftexp.tracking.tracker import NoTracker
from ftexp.training.fit import Fit, fine_tune
from ftexp.training.guessing import reference_values
from ftexp.training.interruption import StopSignals

SMALL = ("runtime.device=cpu", "runtime.workers=0", "runtime.cache=memory", "tracking=none", "train.batch_size=8")
# Everything with a memory of its own: phases with a gate, averages, mixed images, dropout, accumulated gradients.
RICH = (*SMALL, "stage=staged", "stage.gate=off", "augment=medium", "augment.mixup=0.2", "train.ema=0.9")
PLATEAU = ("stage=full", "stage.epochs=4", "scheduler=plateau", "scheduler.patience=0", "optimizer=sgd")
# Adapters, then all blocks from the weights that these were merged into.
LORA = (
    "stage.last_blocks=null",
    "stage.phases=[{name: lora, learn: lora, patterns: ['*'], rank: 1, alpha: 4, epochs: 2},"
    "{name: all, learn: all, epochs: 1}]",
)
VARIANTS = {
    "head": (*SMALL, "stage=head", "stage.epochs=4"),
    "staged": (*RICH, "train.accumulate=2", "loss.class_weights=balanced"),
    "gated": (*SMALL, "stage=staged", "stage.gate=significant"),
    "dropped": (*SMALL, "stage=staged", "stage.on_dropped=continue", "stage.phases.1.lr_factor=1e-9"),
    "plateau": (*SMALL, *PLATEAU, "train.patience=2"),
    "biases": (*SMALL, "stage=bias", "stage.epochs=3", "bn_policy=train", "train.ema=0.9", "train.wise_ft=[0.5]"),
    "lora": (*SMALL, *LORA, "stage.gate=off", "train.ema=0.9", "train.wise_ft=[0.5]", "runtime.cache=off"),
    "pulled": (*SMALL, "stage=full", "stage.epochs=3", "train.l2_sp=0.1", "train.wise_ft=[0.3,0.6]"),
}


def coloured_noise(num_samples: int, seed: int) -> list[Sample]:
    """Samples as those of the files in ``before_formats``."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200], [130, 130, 130]])
    noise = 60 * torch.randn(num_samples, 8, 8, 3, generator=generator)
    pixels = (centres.repeat(num_samples // 4 + 1, 1)[:num_samples, None, None] + noise).clamp(0, 255)
    images = pixels.to(torch.uint8).numpy()
    return [Sample(path=f"{seed}-{i}", label="rgbx"[i % 4], pixels=image) for i, image in enumerate(images)]


def run(config: Config, folder: Path, stop: StopSignals | None = None, run_id: str = "") -> Fit:
    """Begin a run in a folder, or resume the one that is there."""
    folder.mkdir(exist_ok=True)
    if (folder / "checkpoints").exists():
        config = resumed(config, folder)
    splits = Splits(
        coloured_noise(45, 1), coloured_noise(21, 2), TestSplit(coloured_noise(10, 3)), ("b", "g", "r", "x")
    )
    runtime = prepare_runtime(config.runtime)
    network = fresh_network()
    phases = plan_phases(config, NAMES, network)
    recorder = Recorder(folder, NoTracker(), reference_values(config, splits.train, splits.val), phases)
    runtime.place(network.module)
    fit = fine_tune(config, network, splits, phases, runtime, recorder, stop, run_id=run_id)
    (folder / "report.json").write_text(json.dumps(recorder.state()))
    return fit


def splits(*, shade: int = 0, val: tuple[str, ...] = ("v",), classes: tuple[str, ...] = ("a", "b")) -> Splits:
    """Two training images, one for testing, and one for validation unless ``val`` names others."""

    def sample(path: str, grey: int) -> Sample:
        return Sample(path=path, label="a", pixels=np.full((4, 4, 3), grey, np.uint8))

    train = [sample("t", 10 + shade), sample("u", 20)]
    return Splits(train, [sample(path, 30) for path in val], TestSplit([sample("w", 40)]), classes)
