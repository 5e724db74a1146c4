"""Is bf16 as accurate as fp32, and how long does a stated accuracy take? Full fine-tuning of EfficientNet-Lite0.

    python -m benchmarks.gpu.precision [--root FOLDER] [--per-class 400] [--epochs 10] [--seeds 0 1 2] [--log FILE]

A whole run for each precision and seed, with light augmentation, on the same splits for both. The time is the one of
the whole process, its start included, and that of the epochs until validation was within a point of the best.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from benchmarks.head_init import drawn_data
from benchmarks.image_folders import folder_or_digits
from benchmarks.processes import Log, Outcome, Reached, run_process
from benchmarks.results import append_rows, hardware, machine, versions

SECTION = "bf16 and fp32"
POINT = 0.01


def read_seconds(run: Path) -> Reached:
    """The best validation accuracy; instead of rates, the seconds of the epochs until it was nearly reached."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["val_accuracy"]) for row in rows]
    needed = next(number for number, score in enumerate(scores, 1) if score >= max(scores) - POINT)
    return Reached(max(scores), (sum(float(row["seconds"]) for row in rows[:needed]),))


def measure(arguments: argparse.Namespace, root: Path, precision: str, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = drawn_data(root, arguments.per_class, seed, arguments.image_size, folder)
        command = [
            *(sys.executable, "-m", "ftexp", "stage=full", f"stage.epochs={arguments.epochs}", "augment=light"),
            *(f"runtime.precision={precision}", f"runtime.device={arguments.device}", f"hydra.run.dir={folder}/run"),
            *data,
        ]
        return run_process(command, folder, lambda _: read_seconds(folder / "run"))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--per-class", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    log, rows = Log(arguments.log), []
    with folder_or_digits(arguments.root) as root:
        for precision in ("bf16", "fp32") if arguments.device == "cuda" else ("fp32",):
            outcomes = []
            for seed in arguments.seeds if arguments.device == "cuda" else arguments.seeds[:1]:
                key = f"{precision} {root.name} {arguments.per_class} {arguments.image_size} {arguments.epochs} {seed}"
                outcomes.append(log.once(key, lambda: measure(arguments, root, precision, seed)))  # noqa: B023
            accuracies = [outcome.accuracy or 0.0 for outcome in outcomes]
            near = [outcome.images_per_second[0] for outcome in outcomes]
            rows.append(
                {
                    "date": date.today().isoformat(),
                    "data": f"{root.name}, {arguments.per_class} a class, {arguments.image_size} px",
                    "epochs": arguments.epochs,
                    "precision": precision,
                    "val accuracy": f"{statistics.mean(accuracies):.4f}",
                    "least and most": f"{min(accuracies):.4f} to {max(accuracies):.4f}",
                    "epochs to within a point of it, s": f"{statistics.median(near):.1f}",
                    "whole run, s": f"{statistics.median(outcome.seconds for outcome in outcomes):.1f}",
                    "n": len(outcomes),
                    "device": hardware(arguments.device),
                    "machine": machine(),
                    "versions": versions(),
                }
            )
    append_rows(SECTION, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
