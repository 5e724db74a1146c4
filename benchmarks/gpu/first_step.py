"""What does a network cost before it is fast: the first step, the first batch of another size, compiling?

    python -m benchmarks.gpu.first_step --model tf_efficientnet_lite0 [--precision bf16] [--batch-size 32]
                                        [--image-size 224] [--steps 50] [--device cuda]

One process, one network, forward, loss, backward, clipping and update in turn: the first step (libraries and kernels
are loaded, and cuDNN builds a plan for each convolution), one of another batch size, a scoring pass, the median of the
steps after these, then the same compiled. cuDNN compiles the plans of depthwise convolutions at run time from version
9.10 on (NVIDIA/cudnn-frontend, issue 1066), for each batch size again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.utils import counters

from benchmarks.results import append_rows, machine, versions
from benchmarks.step import build_network

SECTION = "First steps on a device"


class Timer:
    """Seconds of a call, until the device is done with it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, call: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    device = torch.device(arguments.device)
    timer, size = Timer(device), arguments.image_size
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = device.type == "cuda"
    network = build_network(arguments.model).to(device, memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=device.type == "cuda")

    def batch(images: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(images, 3, size, size, device=device).to(memory_format=torch.channels_last)
        return noise, torch.randint(10, (images,), device=device)

    def step(forward: Callable[[torch.Tensor], torch.Tensor], given: tuple[torch.Tensor, torch.Tensor]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16"):
            loss = nn.functional.cross_entropy(forward(given[0]), given[1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    @torch.no_grad()
    def score(given: tuple[torch.Tensor, torch.Tensor]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16"):
            network(given[0])

    full, rest = batch(arguments.batch_size), batch(max(2, arguments.batch_size * 3 // 5))
    first = timer(lambda: step(network, full))
    other, scoring = timer(lambda: step(network, rest)), timer(lambda: score(full))
    steady = statistics.median(timer(lambda: step(network, full)) for _ in range(arguments.steps))
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else float("nan")
    compiled = torch.compile(network, dynamic=False)
    compiling = timer(lambda: step(compiled, full))
    after = statistics.median(timer(lambda: step(compiled, full)) for _ in range(arguments.steps))
    return {
        "date": date.today().isoformat(),
        "network": arguments.model,
        "batch": f"{arguments.batch_size} at {size} px, {arguments.precision}",
        "first step, s": f"{first:.1f}",
        "another size, s": f"{other:.1f}",
        "first scoring, s": f"{scoring:.1f}",
        "step, ms": f"{1e3 * steady:.1f}",
        "compiling, s": f"{compiling:.1f}",
        "graphs": counters["stats"]["unique_graphs"],
        "compiled step, ms": f"{1e3 * after:.1f}",
        "peak MiB": f"{peak:.0f}",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "machine": machine(),
        "versions": versions(),
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    row = measure(arguments)
    print(row)
    append_rows(SECTION, [row], *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
