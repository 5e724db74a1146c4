"""What does a network cost before it is fast: the first step, the first batch of another size, compiling?

    python -m benchmarks.gpu.first_step --model tf_efficientnet_lite0 [--precision bf16] [--batch-size 32]
                                        [--image-size 224] [--steps 50] [--device cuda] [--search]
                                        [--channels-first] [--eager]

One process, one network, forward, loss, backward, clipping and update in turn: the first step (libraries and kernels
are loaded, and cuDNN builds a plan for each convolution), one of another batch size, a scoring pass, the median of the
steps after these, then the same compiled. cuDNN compiles the plans of depthwise convolutions at run time from version
9.10 on (NVIDIA/cudnn-frontend, issue 1066), for each batch size again. With ``--search``, cuDNN tries all its kernels
and takes the fastest, as it does in runs of many steps. With ``--channels-first``, images and weights are contiguous in
memory. With ``--eager``, nothing is compiled.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from benchmarks.results import append_rows, hardware, machine, versions
from benchmarks.step import Batch, bare, build, noise, runtime_of, time_steps

SECTION = "First steps on a device"


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    settings = [f"runtime.precision={arguments.precision}", "runtime.compile=false"]
    settings += ["runtime.channels_last=false"] if arguments.channels_first else []
    runtime = runtime_of(arguments.device, *settings)
    torch.backends.cudnn.benchmark = arguments.search
    network, optimizer = build(arguments.model, runtime)
    full = noise(arguments.batch_size, arguments.image_size, runtime)
    rest = noise(max(2, arguments.batch_size * 3 // 5), arguments.image_size, runtime)
    step = bare(network, optimizer, runtime)

    @torch.no_grad()
    def score(batch: Batch) -> None:
        with runtime.autocast():
            network(batch[0])

    def seconds(call: Callable[[Batch], object], batch: Batch) -> float:
        return time_steps(call, batch, 1)

    first, other, scoring = seconds(step, full), seconds(step, rest), seconds(score, full)
    steady = statistics.median(seconds(step, full) for _ in range(arguments.steps))
    peak = runtime.peak_memory_mib()
    compiling = after = "-"
    if not arguments.eager:
        network.compile(dynamic=False)
        compiling = f"{seconds(step, full):.1f}"
        after = f"{1e3 * statistics.median(seconds(step, full) for _ in range(arguments.steps)):.1f}"
    return {
        "date": date.today().isoformat(),
        "network": arguments.model,
        "batch": f"{arguments.batch_size} at {arguments.image_size} px, {arguments.precision}"
        + (", channels first" if arguments.channels_first else "")
        + (", cuDNN searches" if arguments.search else ""),
        "first step, s": f"{first:.1f}",
        "another size, s": f"{other:.1f}",
        "first scoring, s": f"{scoring:.1f}",
        "step, ms": f"{1e3 * steady:.1f}",
        "compiling, s": compiling,
        "graphs": counters["stats"]["unique_graphs"],
        "compiled step, ms": after,
        "peak MiB": f"{peak:.0f}",
        "device": hardware(arguments.device),
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
    parser.add_argument("--search", action="store_true", help="torch.backends.cudnn.benchmark")
    parser.add_argument("--channels-first", action="store_true", help="runtime.channels_last=false")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    row = measure(arguments)
    print(row)
    append_rows(SECTION, [row], *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
