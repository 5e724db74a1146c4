"""Do accumulated batches, and several processes, give the gradient and the loss of one large batch?

    python -m benchmarks.loss_parts [--precisions float64 float32]

16 samples of three classes (13, 2, 1) train a linear layer by ftexp's own step, in batches of 8 (2 an update) and of 5,
5, 5 and 1 (4 an update), in one process and in two (gloo), for class indices and for class probabilities as mixup makes
them. The result is compared with one batch of 16, computed without ftexp: the relative errors of the gradient (of its
norm) and of the reported loss, which have to stay below 1e-6. "Means of parts" is the error of the gradient for class
indices if the mean of each part were weighted by its number of images. Appends a table to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F

from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.report.tables import format_table
from ftexp.training.loop import train_epoch
from ftexp.training.losses import BinaryCrossEntropy, CrossEntropy, FocalLoss
from ftexp.training.progress import Progress
from ftexp.training.step import Step

SMOOTHING, GAMMA = 0.1, 2.0
WEIGHTS = torch.tensor([1 / 13, 1 / 2, 1.0])
LOSSES = {
    "cross-entropy, class weights": CrossEntropy(SMOOTHING, WEIGHTS),
    "bce": BinaryCrossEntropy(SMOOTHING),
    "focal": FocalLoss(GAMMA),
}
# Batches per update -> the images of each.
PARTS = {2: [8, 8], 4: [5, 5, 5, 1]}
PRECISIONS, LIMIT = ("float64", "float32"), 1e-6

Result = tuple[Tensor, float]


def samples(dtype: torch.dtype, *, shares: bool) -> tuple[Tensor, Tensor]:
    """Inputs [16, 6], and class indices [16] or class probabilities [16, 3]."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 6, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.tensor([0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0])
    if not shares:
        return inputs, labels
    one_hot = F.one_hot(labels, 3).to(dtype)
    return inputs, 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)


def layer(dtype: torch.dtype) -> nn.Linear:
    linear = nn.Linear(6, 3).to(dtype)
    weight = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_()
    return linear


class Parts:
    """Batches of given sizes, whose rows are divided among the ranks."""

    def __init__(self, batch: tuple[Tensor, Tensor], sizes: Sequence[int], ranks: Ranks) -> None:
        split = zip(*(tensor.split(list(sizes)) for tensor in batch), strict=True)
        self._batches = [tuple(tensor[ranks.rank :: ranks.size] for tensor in part) for part in split]
        self._sizes = sizes
        self.num_batches, self.num_samples = len(sizes), sum(sizes)

    def num_images(self, batch: int) -> int:
        return self._sizes[batch]

    def epoch(self, epoch: int, start: int = 0) -> object:
        return iter(self._batches)


def by_ftexp(name: str, accumulate: int, dtype: torch.dtype, runtime: Runtime, *, shares: bool) -> Result:
    """The gradient of one update, and the loss that the epoch reports."""
    linear = layer(dtype)
    forward = runtime.ranks.replicate(linear, linear)
    step = Step(forward, torch.optim.SGD(linear.parameters(), lr=0.0), LOSSES[name], runtime)
    batches = Parts(samples(dtype, shares=shares), PARTS[accumulate], runtime.ranks)
    with Progress(enabled=False).epoch("", 1) as bar:
        stats = train_epoch(step, batches, 1, bar, accumulate)
    return linear.weight.grad.clone(), stats.loss


def in_one_batch(name: str, linear: nn.Linear, inputs: Tensor, targets: Tensor) -> Tensor:
    """The mean loss by its formula, in float64."""
    logits = linear(inputs)
    if name.startswith("cross") and targets.ndim == 1:
        return F.cross_entropy(logits, targets, WEIGHTS.double(), label_smoothing=SMOOTHING)
    shares = targets if targets.ndim == 2 else F.one_hot(targets, 3).double()
    smooth = shares * (1 - SMOOTHING) + SMOOTHING / 3
    if name == "bce":
        return -(smooth * logits.sigmoid().log() + (1 - smooth) * (1 - logits.sigmoid()).log()).mean()
    p = logits.softmax(1)
    if name == "focal":
        return -(shares * (1 - p) ** GAMMA * p.log()).sum(1).mean()
    return -(smooth * WEIGHTS * p.log()).sum() / (shares * WEIGHTS).sum()


def expected(name: str, *, shares: bool) -> Result:
    linear = layer(torch.float64)
    loss = in_one_batch(name, linear, *samples(torch.float64, shares=shares))
    loss.backward()
    return linear.weight.grad, loss.item()


def means_of_parts(name: str, accumulate: int) -> Tensor:
    """The gradient if the mean of each part is weighted by its number of images."""
    linear, sizes = layer(torch.float64), PARTS[accumulate]
    inputs, targets = samples(torch.float64, shares=False)
    for part in zip(inputs.split(sizes), targets.split(sizes), strict=True):
        (in_one_batch(name, linear, *part) * len(part[0]) / 16).backward()
    return linear.weight.grad


def all_by_ftexp(precisions: Sequence[str], runtime: Runtime) -> dict[tuple[object, ...], Result]:
    cases = product(LOSSES, PARTS, precisions, (False, True))
    return {case: by_ftexp(*case[:2], getattr(torch, case[2]), runtime, shares=case[3]) for case in cases}


def cpu_runtime(ranks: Ranks) -> Runtime:
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        return prepare_runtime(parse(compose("config", overrides=["runtime.device=cpu"])).runtime, ranks)


def process(rank: int, folder: str, precisions: Sequence[str]) -> None:
    """Run one of the two processes; the first one writes the result."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = all_by_ftexp(precisions, cpu_runtime(Ranks(rank, 2, rank, 2)))
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    distributed.destroy_process_group()


def deviation(found: Tensor | float, right: Tensor | float) -> float:
    found, right = torch.as_tensor(found).double(), torch.as_tensor(right).double()
    return ((found - right).norm() / right.norm()).item()


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    by_processes = {1: all_by_ftexp(arguments.precisions, cpu_runtime(ONE_PROCESS))}
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(process, (folder, arguments.precisions), nprocs=2)
        by_processes[2] = torch.load(f"{folder}/results.pt", weights_only=True)
    rows: list[dict[str, object]] = []
    largest = dict.fromkeys(arguments.precisions, 0.0)
    for precision, name, accumulate, processes in product(arguments.precisions, LOSSES, PARTS, by_processes):
        row: dict[str, object] = {"date": date.today().isoformat(), "precision": precision, "loss": name}
        row |= {"batches an update": accumulate, "processes": processes}
        for shares, kind in ((False, "class numbers"), (True, "shares")):
            results = by_processes[processes][name, accumulate, precision, shares]
            right = expected(name, shares=shares)
            for what, found, reference in zip(("gradient", "loss"), results, right, strict=True):
                value = deviation(found, reference)
                row[f"{kind}, {what}"] = f"{value:.1e}"
                largest[precision] = max(largest[precision], value)
        before = deviation(means_of_parts(name, accumulate), expected(name, shares=False)[0])
        rows.append({**row, "means of parts": f"{before:.1e}", "machine": machine(), "versions": versions()})
    print(format_table(rows))
    for precision, value in largest.items():
        print(f"{precision}: largest relative deviation {value:.1e}, allowed {LIMIT:.0e}")
        if value > LIMIT:
            raise SystemExit("The parts do not combine to the whole.")
    append_rows("Parts of an update and processes beside one batch", rows, *_given(arguments.results))


def _given(results: Path | None) -> list[Path]:
    return [results] if results else []


if __name__ == "__main__":
    main()
