"""Does a search find good rates, and what does pruning cost?

    python -m benchmarks.sweep_quality [--trials 20] [--seeds 5] [--epochs N]

Head of EfficientNet-Lite0 on the digits. The search is compared with the best of a 5 x 5 grid over its two settings;
with Hyperband, it is compared with itself without pruning, seed by seed of the sampler, by the epochs that all trials
ran. Sweeps run two at a time with a thread each, all from one cache. Appends to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.results import append_rows, machine, versions
from ftexp.report.tables import format_table

PROJECT = Path(__file__).resolve().parents[1]
GRID = ["optimizer.head_lr=1e-4,5.6e-4,3.2e-3,1.8e-2,1e-1", "optimizer.weight_decay=1e-5,1e-4,1e-3,1e-2,1e-1"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A sweep's best validation accuracy, its epochs over all trials, and its seconds."""

    best: float
    epochs: int
    seconds: float


def sweep(folder: Path, arguments: Sequence[str]) -> Outcome:
    place = Path(tempfile.mkdtemp(dir=folder))
    settings = [
        "stage=head",
        "head.solver=sgd",
        "tracking=none",
        f"runtime.cache_folder={folder / 'cache'}",
        f"hydra.sweep.dir={place}",
    ]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ftexp", "--multirun", *settings, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    epochs = 0
    for metrics in place.glob("[0-9]*/metrics.csv"):
        with metrics.open(newline="") as file:
            epochs += len(list(csv.DictReader(file)))
    (best,) = json.loads((place / "sweep.json").read_text())["best"]
    return Outcome(best["values"]["val_accuracy"], epochs, seconds)


def row(name: str, outcomes: Sequence[Outcome], baseline: Sequence[Outcome], trials: int) -> dict[str, object]:
    best, seconds = [outcome.best for outcome in outcomes], [outcome.seconds for outcome in outcomes]
    shares = [mine.epochs / theirs.epochs for mine, theirs in zip(outcomes, baseline, strict=True)]
    return {
        "date": date.today().isoformat(),
        "sweep": name,
        "trials": trials,
        "best val accuracy": f"{statistics.median(best):.4f} ({min(best):.4f} to {max(best):.4f})",
        "epochs": f"{statistics.median([outcome.epochs for outcome in outcomes]):.0f}",
        "share of the epochs": f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        "seconds": f"{statistics.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})",
        "n": len(outcomes),
        "machine": machine(),
        "versions": versions(),
    }


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of a trial; otherwise as configured")
    arguments = parser.parse_args(given)
    epochs = [f"stage.epochs={arguments.epochs}"] if arguments.epochs else []
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(2) as pool:
        folder = Path(temporary)
        sweep(folder, [*epochs, "hydra.sweeper.n_trials=1"])  # fills the cache
        searches = {
            (pruner, seed): pool.submit(
                sweep,
                folder,
                [
                    *epochs,
                    f"hydra.sweeper.n_trials={arguments.trials}",
                    f"hydra.sweeper.pruner={pruner}",
                    f"hydra.sweeper.sampler.seed={seed}",
                ],
            )
            for seed in range(1, arguments.seeds + 1)
            for pruner in ("none", "hyperband")
        }
        grid = pool.submit(sweep, folder, [*epochs, *GRID])
        seeds = range(1, arguments.seeds + 1)
        whole = [searches["none", seed].result() for seed in seeds]
        pruned = [searches["hyperband", seed].result() for seed in seeds]
        rows = [
            row("search without pruning", whole, whole, arguments.trials),
            row("search with hyperband", pruned, whole, arguments.trials),
            row("5 x 5 grid", [grid.result()], [whole[0]], 25),
        ]
    print(format_table(rows))
    append_rows("Searches of the head's settings", rows)


if __name__ == "__main__":
    main()
