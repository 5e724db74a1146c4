"""Whole runs of a tiny network on coloured noise, in a second each."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import TinyNet

from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data_identity import DataIdentity
from ftexp.evaluation.history import Observer
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Block, Network
from ftexp.preparation.head_solver import choose_solver
from ftexp.preprocessing import Preprocessing
from ftexp.report.recorder import Recorder
from ftexp.run_identity import RunIdentity
from ftexp.tracking.tracker import NoTracker
from ftexp.training.compile_choice import choose_compiled
from ftexp.training.fit import Fit, fine_tune
from ftexp.training.guessing import reference_values

NAMES = ("stem", "body", "head")
CPU = ("runtime.device=cpu", "runtime.workers=0", "runtime.cache=memory", "tracking=none")
SMALL = (*CPU, "train.batch_size=8", "stage.epochs=3")


def colours(num_samples: int, seed: int) -> list[Sample]:
    """Noise around one of four colours: learnable in a few steps, but not at once."""
    rng = np.random.default_rng(seed)
    centres = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [130, 130, 130]])
    samples = []
    for i in range(num_samples):
        pixels = np.clip(centres[i % 4] + rng.normal(0, 60, (8, 8, 3)), 0, 255).astype(np.uint8)
        samples.append(Sample(path=f"colours/{seed}-{i:03d}", label="rgbx"[i % 4], pixels=pixels))
    return samples


def fresh_network() -> Network:
    torch.manual_seed(0)
    blocks = [Block("stem", ("stem",)), Block("body", ("body", "token"))]
    half = (0.5, 0.5, 0.5)
    return Network(
        TinyNet(),
        blocks,
        head="fc",
        preprocessing=Preprocessing(8, 8, "bilinear", half, half),
        name="tiny",
        num_classes=4,
    )


def fit(config: Config, splits: Splits, folder: Path, *observers: Observer) -> Fit:
    setting = reference_values(config, splits.train, splits.val)
    network = fresh_network()
    phases = choose_solver(config, plan_phases(config, NAMES, network), ())
    recorder = Recorder(folder, NoTracker(), setting, phases)
    runtime = prepare_runtime(config.runtime)
    phases = choose_compiled(config, phases, network, len(splits.train), runtime)
    runtime.place(network.module)
    judges = splits.copies is not None
    return fine_tune(config, network, splits, phases, runtime, recorder, observers=observers, judges_labels=judges)


def resumed(config: Config, folder: Path) -> Config:
    """The configuration with which the run in a folder is resumed."""
    return replace(config, resume=replace(config.resume, run=str(folder)))


def identity_of(config: Config, splits: Splits) -> RunIdentity:
    """Of a run that has begun to train with these images."""
    facts: dict[str, Any] = {"batch_size": 8, "mlflow_run_id": None, "run_id": "1a", "overrides": [], "engine": {}}
    return RunIdentity.of(config, DataIdentity.of(splits), **facts)


def subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def curve(result: Fit) -> list[tuple[float, ...]]:
    """All that must repeat: everything but times."""
    return [(r.train_loss, r.val_loss, *r.val.values(), r.grad_norm, r.lr_head) for r in result.history]


def changed_after_two_steps(network: Network, phase: Phase) -> set[str]:
    """Names of the tensors of the state dict that two optimizer steps moved."""
    before = copy.deepcopy(network.module.state_dict())
    open_blocks(network, phase)
    optimizer = build_optimizer(phase.optimizer, build_param_groups(network, phase), torch.device("cpu"))
    for _ in range(2):
        network.module.eval()  # as a validation in between leaves it
        set_train_mode(network, phase)
        logits = network.module(torch.randn(8, 3, 8, 8) * 3 + 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.arange(8) % 4).backward()
        optimizer.step()
    after = network.module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}
