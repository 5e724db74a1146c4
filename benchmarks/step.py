"""How much longer does ftexp's training step take than a plain one (forward, loss, backward, clipping, update)?

    python -m benchmarks.step [--models tf_efficientnet_lite0 resnet18] [--image-size 96] [--batch-size 32] [--steps 20]
                              [--rounds 5] [--device auto] [--fold]

Both sides train the whole network, in turn, on one synthetic batch that is on the device already, with the same
settings (channels last, precision, compilation, BatchNorm in eval mode). On CUDA, the plain one is the compiled step
that ``benchmarks.throughput`` compares with. With ``--fold``, ftexp's step is that of runtime.fold_batchnorm=true,
which compiled phases do without, so that nothing is compiled, and a second table has what autograd keeps for the
backward pass. If the speed of the machine drifts, many short turns give better figures: --steps 1 --rounds 40. Appends
tables to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import timm
import torch
import torchvision
from hydra import compose, initialize_config_dir
from torch import nn

from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.finetune.batchnorm import batch_norms
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.report.tables import format_table
from ftexp.training.folding import FoldedForward
from ftexp.training.losses import CrossEntropy
from ftexp.training.step import Step

Batch = tuple[torch.Tensor, torch.Tensor]


def bare(model: nn.Module, optimizer: torch.optim.Optimizer, runtime: Runtime) -> Callable[[Batch], object]:
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)

    def step(batch: Batch) -> object:
        images, labels = batch
        with runtime.autocast():
            loss = loss_fn(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return step


def ours(
    model: nn.Module, optimizer: torch.optim.Optimizer, runtime: Runtime, *, fold: bool = False
) -> Callable[[Batch], object]:
    forward = FoldedForward(model, model, runtime) if fold else model
    step = Step(forward, optimizer, CrossEntropy(0.1), runtime, clip_norm=1.0)
    return lambda batch: (step.backward(*batch), step.update())


def time_steps(step: Callable[[Batch], object], batch: Batch, num_steps: int) -> float:
    """Seconds per step."""
    started = time.perf_counter()
    for _ in range(num_steps):
        step(batch)
    if batch[0].device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / num_steps


def build_network(name: str) -> nn.Module:
    """Build torchvision's network of this name or, if there is none, timm's."""
    if name in torchvision.models.list_models(torchvision.models):
        return torchvision.models.get_model(name, num_classes=10)
    return timm.create_model(name, num_classes=10)


def runtime_of(device: str, *settings: str) -> Runtime:
    """The runtime of a run on this device with the defaults, but for these settings."""
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        return prepare_runtime(parse(compose("config", overrides=[f"runtime.device={device}", *settings])).runtime)


def build(name: str, runtime: Runtime) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The network on the device as a run trains it, compiled if the runtime says so, and its optimizer."""
    model = build_network(name)
    runtime.place(model)
    model.train()
    for layer in batch_norms(model):
        layer.eval()  # bn_policy=eval, the default
    if runtime.compile:
        model.compile()
    return model, torch.optim.AdamW(model.parameters(), 1e-4, fused=runtime.device.type == "cuda")


def noise(images: int, size: int, runtime: Runtime) -> Batch:
    """One synthetic batch on the device."""
    pixels = torch.randn(images, 3, size, size)
    return runtime.place_images(pixels), torch.randint(10, (images,)).to(runtime.device)


def what(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """The columns that both tables begin with."""
    images = f"{arguments.batch_size} at {arguments.image_size} px"
    return {"date": date.today().isoformat(), "model": name, "images": images}


def measure(name: str, arguments: argparse.Namespace, runtime: Runtime) -> dict[str, object]:
    batch = noise(arguments.batch_size, arguments.image_size, runtime)
    sides: list[Callable[[Batch], object]] = []
    for make in (bare, partial(ours, fold=arguments.fold)):
        torch.manual_seed(0)
        sides.append(make(*build(name, runtime), runtime))
    for step in sides:
        time_steps(step, batch, 3)  # warm up, compile
    seconds = [[time_steps(step, batch, arguments.steps) for step in sides] for _ in range(arguments.rounds)]
    ratios = [mine / theirs for theirs, mine in seconds]
    return {
        **what(name, arguments),
        "bare ms": f"{1e3 * statistics.median(theirs for theirs, _ in seconds):.2f}",
        "ftexp ms": f"{1e3 * statistics.median(mine for _, mine in seconds):.2f}",
        "ratio": f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        "n": f"{arguments.rounds} x {arguments.steps} steps",
        "device": f"{runtime.device.type}, {runtime.precision}",
        "machine": machine(),
        "versions": versions(),
    }


def saved_mib(forward: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> float:
    """What autograd keeps for the backward pass of each image, in MiB: every storage once, and no parameters."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(images)
    return sum(storage.nbytes() for storage in kept.values()) / len(images) / 2**20


def measure_saved(name: str, arguments: argparse.Namespace, runtime: Runtime) -> dict[str, object]:
    (images, _), (model, _) = noise(arguments.batch_size, arguments.image_size, runtime), build(name, runtime)
    folded = FoldedForward(model, model, runtime)
    folded(images[:2])
    without, with_it = saved_mib(model, images), saved_mib(folded, images)
    return {
        **what(name, arguments),
        "MiB an image": f"{without:.1f}",
        "folded": f"{with_it:.1f}",
        "ratio": f"{with_it / without:.2f}",
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fold", action="store_true")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    runtime = runtime_of(arguments.device, *(["runtime.compile=false"] if arguments.fold else []))
    rows = [measure(name, arguments, runtime) for name in arguments.models]
    print(format_table(rows))
    print(json.dumps(rows[-1]))  # for benchmarks.throughput
    to = [arguments.results] if arguments.results else []
    append_rows("A full step beside the bare loop's", rows, *to)
    if arguments.fold:
        saved = [measure_saved(name, arguments, runtime) for name in arguments.models]
        print(format_table(saved))
        append_rows("What is kept for the backward pass", saved, *to)


if __name__ == "__main__":
    main()
