"""How much faster do several processes train than one?

    python -m benchmarks.scaling [--processes 1 2] [--stages head full pass] [--epochs 2] [--image-size 32]
                                 [--batch-size 64] [--rounds 3] [--device cpu]

Whole runs by torchrun on the digits, the same global batch on every number of processes, in turn; images per second
from the second epoch on, as in metrics.csv, and of ``pass``, the one pass of the frozen blocks. Appends a table to
benchmarks/results.md. Processes on one CPU share its cores, each with one thread: there the table only shows that the
benchmark works, and the cost of the collectives.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.results import append_rows, machine, versions
from ftexp.report.tables import format_table

PASS = "pass"
PROJECT = Path(__file__).resolve().parents[1]


def images_per_second(processes: int, stage: str, arguments: argparse.Namespace, folder: Path) -> float:
    """The images per second of one run: the median over its epochs without the first, or of its frozen blocks."""
    run = Path(tempfile.mkdtemp(dir=folder))
    # The steps are what is measured, or the pass alone.
    only = ["stage=head", "stage.epochs=1", f"runtime.cache_folder={run / 'cache'}"]
    steps = [f"stage={stage}", f"stage.epochs={arguments.epochs}", f"runtime.cache_folder={folder / 'cache'}"]
    settings = [
        *(only if stage == PASS else [*steps, "runtime.cache=off"]),
        "head.solver=sgd",
        f"data.image_size={arguments.image_size}",
        f"train.batch_size={arguments.batch_size}",
        f"runtime.device={arguments.device}",
        "tracking=none",
        "audit.on_leak=off",
        f"hydra.run.dir={run}",
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run(
        [sys.executable, *launcher, "-m", "ftexp", *settings],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    if stage == PASS:
        return speed_of_pass((run / "ftexp.log").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        return statistics.median([float(row["images_per_second"]) for row in csv.DictReader(file)][1:])


def speed_of_pass(log: str) -> float:
    """The images per second of the frozen blocks, from the log of a run."""
    counts, seconds = re.search(r"train (\d+), val (\d+)", log), re.search(r"computed once.*, ([\d.]+) s;", log)
    assert counts is not None, log
    assert seconds is not None, log
    return (int(counts[1]) + int(counts[2])) / float(seconds[1])


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--stages", nargs="+", default=["head", "full"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for stage in arguments.stages:
            rounds = [
                {n: images_per_second(n, stage, arguments, Path(temporary)) for n in arguments.processes}
                for _ in range(arguments.rounds)
            ]
            for processes in arguments.processes:
                rates = [rates[processes] for rates in rounds]
                ratios = [rates[processes] / rates[arguments.processes[0]] for rates in rounds]
                rows.append(
                    {
                        "date": date.today().isoformat(),
                        "stage": stage,
                        "processes": processes,
                        "images": f"{arguments.batch_size} at {arguments.image_size} px",
                        "images/s": f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})",
                        "ratio": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                        "n": arguments.rounds,
                        "device": arguments.device,
                        "machine": machine(),
                        "versions": versions(),
                    }
                )
    print(format_table(rows))
    append_rows("Several processes beside one", rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
