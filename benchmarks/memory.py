"""Does the peak memory of a run grow with the number of images?

    python -m benchmarks.memory [--counts 1000 20000] [--stages head full] [--image-size 32] [--epochs 2] [--rounds 3]

Writes that many small images of noise (two classes, a tenth for validation), and trains on them in a new process, with
activations and pixels cached on disk, without the audit's features and without tracking. Appends a table to
benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.processes import read_run, run_process
from benchmarks.results import append_rows, machine, versions
from benchmarks.side_by_side import ftexp_command
from ftexp.report.tables import format_table


def write_images(folder: Path, count: int, size: int) -> None:
    """Write noise in two brightnesses, as JPEG files of 1.25 times the image size."""
    rng, side = np.random.default_rng(0), size * 5 // 4
    for number in range(count):
        split, label = "val" if number % 10 == 0 else "train", number // 10 % 2
        path = folder / split / f"class{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (side, side, 3), np.uint8) + np.uint8(50 * label)).save(path)


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 20000])
    parser.add_argument("--stages", nargs="+", default=["head", "full"])
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    parser.set_defaults(device="cpu")  # whose memory this is
    arguments = parser.parse_args(given)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as images:
        for count in arguments.counts:
            write_images(Path(images) / str(count), count, arguments.image_size)
        for stage in arguments.stages:
            first: float | None = None
            for count in arguments.counts:
                arguments.stage, arguments.root = stage, Path(images) / str(count)
                peaks = [peak(arguments, seed) for seed in range(arguments.rounds)]
                first = first or statistics.median(peaks)
                rows.append(
                    {
                        "date": date.today().isoformat(),
                        "stage": stage,
                        "images": count,
                        "px": arguments.image_size,
                        "epochs": arguments.epochs,
                        "peak MiB": f"{statistics.median(peaks):.0f} ({min(peaks):.0f} to {max(peaks):.0f})",
                        "ratio": f"{statistics.median(peaks) / first:.2f}",
                        "n": len(peaks),
                        "machine": machine(),
                        "versions": versions(),
                    }
                )
                print(format_table(rows[-1:]), flush=True)
    append_rows("Peak memory by the number of images", rows, *([arguments.results] if arguments.results else []))


def peak(arguments: argparse.Namespace, seed: int) -> float:
    """The peak resident memory of one run, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*ftexp_command(arguments, seed, Path(folder)), "audit.features=false"]
        return run_process(command, Path(folder), lambda _: read_run(Path(folder) / "run")).peak_mib


if __name__ == "__main__":
    main()
