"""The common part of the programs that ``benchmarks.accuracy`` compares: they train for given seconds, then predict.

It does not import ftexp, because the programs may run in another environment.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

BEGAN = time.monotonic()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True, help="folder with train/CLASS, val/CLASS and test/CLASS")
    parser.add_argument("--seconds", type=float, required=True, help="from the start of the program to its end")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--predictions", type=Path, required=True, help="CSV: path, and the probability of each class")
    return parser.parse_args()


def seconds_left(arguments: argparse.Namespace, for_the_end: float) -> float:
    """Seconds for training, when ``for_the_end`` are kept."""
    return float(arguments.seconds) - (time.monotonic() - BEGAN) - for_the_end


def write(
    arguments: argparse.Namespace,
    paths: Sequence[str],
    classes: Sequence[str],
    probabilities: Sequence[Sequence[float]],
) -> None:
    """Write the probabilities of every test image."""
    with arguments.predictions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *classes])
        for path, row in zip(paths, probabilities, strict=True):
            writer.writerow([Path(path).relative_to(arguments.root / "test"), *row])
