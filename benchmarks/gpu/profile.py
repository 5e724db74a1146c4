"""Where does the time of a compiled training step go: kernels, and gaps between them?

    python -m benchmarks.gpu.profile --model resnet50 [--batch-size 256] [--image-size 224] [--device cuda]
                                     [--trace trace.json.gz]

``busy`` is the share of the steps' time in which a kernel runs; the rest are gaps, in which the device waits for the
host. The trace opens in Perfetto.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.results import append_rows, hardware, machine, versions
from benchmarks.step import build, noise, ours, runtime_of, time_steps

SECTION = "Kernels and gaps of a compiled step"
STEPS = 5


def own_time(event: Any, on_cuda: bool) -> float:
    """Microseconds of a kernel, or of an operation on the CPU."""
    return float(event.self_device_time_total if on_cuda else event.self_cpu_time_total)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    runtime = runtime_of(arguments.device)
    on_cuda = runtime.device.type == "cuda"
    batch = noise(arguments.batch_size, arguments.image_size, runtime)
    step = ours(*build(arguments.model, runtime), runtime)
    time_steps(step, batch, 3)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiled:
        started = time.perf_counter()
        time_steps(step, batch, STEPS)
        wall = time.perf_counter() - started
    if arguments.trace is not None:
        profiled.export_chrome_trace(str(arguments.trace))
    averages = profiled.key_averages()
    kernels = sorted((event for event in averages if own_time(event, on_cuda) > 0), key=lambda e: -own_time(e, on_cuda))
    total = sum(own_time(event, on_cuda) for event in kernels) / 1e6
    row = {
        "date": date.today().isoformat(),
        "network": arguments.model,
        "batch": f"{arguments.batch_size} at {arguments.image_size} px, {runtime.precision}",
        "step, ms": f"{1e3 * wall / STEPS:.1f}",
        "busy": f"{min(1.0, total / wall):.2f}",
        "longest kernels": ", ".join(f"{e.key[:40]} {own_time(e, on_cuda) / 1e4 / total:.0f} %" for e in kernels[:3]),
        "device": hardware(arguments.device),
        "machine": machine(),
        "versions": versions(),
    }
    print(row)
    append_rows(SECTION, [row], *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
