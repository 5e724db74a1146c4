"""How long do ``stage=head`` and ``stage=partial`` take, compared with a hand-written training loop?

    python -m benchmarks.head_partial [--epochs 3] [--rounds 3] [--stages head partial]

Four programs are timed, one after the other in one process, round after round (A B C D A B C D ...), on scikit-learn's
digits with the bundled EfficientNet-Lite0 weights: reading the images, training and validation, from built network to
last score.

    plain      frozen blocks, BatchNorm in eval mode, AdamW, clipping, PIL transforms in a Dataset, `.item()` a step:
               the usual hand-written loop
    uncached   ftexp with runtime.cache=off
    ftexp      the frozen prefix runs once per phase, then only the trainable blocks
    kept       ftexp with its defaults: from the second round on, the activations are read from disk

Appends rows to benchmarks/results.md. The first round also warms up and is measured like the others.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.results import append_rows, machine, versions
from ftexp.config import Config, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.config.loss import CrossEntropyConfig
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import Splits, make_splits
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.preparation.prepare import plan
from ftexp.preprocessing import Preprocessing
from ftexp.report.recorder import Recorder
from ftexp.report.tables import format_table
from ftexp.tracking.tracker import NoTracker
from ftexp.training.fit import fine_tune
from ftexp.training.guessing import reference_values

SECTION = "Head and partial beside a hand-written loop"


class PlainDataset(Dataset[tuple[torch.Tensor, int]]):
    """Opens and transforms an image every time it is read."""

    def __init__(self, samples: list[Sample], class_to_idx: dict[str, int], preprocessing: Preprocessing) -> None:
        self.samples = samples
        self.class_to_idx = class_to_idx
        self.transform = v2.Compose(
            [
                v2.Resize(preprocessing.resize_size, v2.InterpolationMode(preprocessing.interpolation)),
                v2.CenterCrop(preprocessing.image_size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample = self.samples[index]
        return self.transform(open_image(sample)), self.class_to_idx[sample.label]


def freeze_batchnorm(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad = False


def run_plain(config: Config, network: Network, splits: Splits) -> float:
    """Train as a short script would; returns the last validation accuracy."""
    model, batch_size = network.module, config.train.images_per_step
    blocks = [HEAD] if config.stage.phases[0].learn == "head" else list(network.names[-2:])
    for parameter in model.parameters():
        parameter.requires_grad = False
    groups = []
    for block in blocks:
        parameters = list(network.parameters(block).values())
        for parameter in parameters:
            parameter.requires_grad = True
        rate = config.optimizer.head_lr if block == HEAD else config.optimizer.backbone_lr
        groups.append({"params": parameters, "lr": rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=config.optimizer.weight_decay)
    assert isinstance(config.loss, CrossEntropyConfig)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
    train = PlainDataset(splits.train, splits.class_to_idx, network.preprocessing)
    val = PlainDataset(splits.val, splits.class_to_idx, network.preprocessing)
    accuracy = 0.0
    for _ in range(config.stage.epochs):
        model.train()
        model.apply(freeze_batchnorm)
        for images, labels in DataLoader(train, batch_size, shuffle=True):
            loss = loss_fn(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in DataLoader(val, batch_size):
                correct += int((model(images).argmax(dim=1) == labels).sum().item())
        accuracy = correct / len(val)
    return accuracy


def run_ftexp(config: Config, network: Network, splits: Splits) -> float:
    """Train as a run does, with its checkpoints and tables, without tracking; returns the last validation accuracy."""
    runtime = prepare_runtime(config.runtime)
    runtime.place(network.module)
    phases = plan(config)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder), NoTracker(), reference_values(config, splits.train, splits.val), phases)
        fit = fine_tune(config, network, splits, phases, runtime, recorder)
    return fit.history[-1].val["accuracy"]


SIDES: dict[str, tuple[Callable[[Config, Network, Splits], float], list[str]]] = {
    "plain": (run_plain, []),
    "uncached": (run_ftexp, ["runtime.cache=off"]),
    "ftexp": (run_ftexp, ["runtime.cache=memory"]),
    "kept": (run_ftexp, ["runtime.cache=disk"]),
}


def configure(stage: str, epochs: int, overrides: list[str]) -> Config:
    fixed = [f"stage={stage}", f"stage.epochs={epochs}", "head.solver=sgd", "runtime.device=cpu", "tracking=none"]
    return parse(compose("config", overrides=fixed + overrides))


def measure(stage: str, epochs: int, rounds: int) -> list[dict[str, object]]:
    """Time every program ``rounds`` times, in turn."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    accuracy: dict[str, float] = {}
    for number in range(rounds):
        for side, (run, overrides) in SIDES.items():
            config = configure(stage, epochs, overrides)
            torch.manual_seed(config.runtime.seed)
            splits = make_splits(read_samples(config.data), config.data)
            weights = locate_weights(config.model)
            network = build_network(config.model, weights, splits.classes, config.data.image_size)
            started = time.perf_counter()
            accuracy[side] = run(config, network, splits)
            seconds[side].append(time.perf_counter() - started)
            print(
                f"{stage:8} round {number + 1}  {side:9} {seconds[side][-1]:7.1f} s  {accuracy[side]:.4f}", flush=True
            )
    plain = statistics.median(seconds["plain"])
    return [
        {
            "date": date.today().isoformat(),
            "stage": stage,
            "epochs": epochs,
            "side": side,
            "seconds": f"{statistics.median(taken):.1f} ({min(taken):.1f} to {max(taken):.1f})",
            "n": rounds,
            "ratio": f"{statistics.median(taken) / plain:.2f}",
            "val accuracy": f"{accuracy[side]:.4f}",
            "machine": machine(),
            "versions": versions(),
        }
        for side, taken in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stages", nargs="+", choices=["head", "partial"], default=["head", "partial"])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    register_schema()
    with initialize_config_dir(config_dir=str(conf_dir())):
        for stage in arguments.stages:
            rows = measure(stage, arguments.epochs, arguments.rounds)
            print(format_table(rows))
            append_rows(SECTION, rows)


if __name__ == "__main__":
    main()
