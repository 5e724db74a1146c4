"""The start of ftexp: a whole run on 24 tiny pictures, ``--help`` and a mistake beside ``import torch`` alone."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from PIL import Image

from benchmarks.processes import environment
from benchmarks.results import machine, versions

TORCH = "import torch"
RUN = ("data=imagefolder", "data.root=pictures", "data.image_size=32", "stage=head", "stage.epochs=1", "tracking=none")
FTEXP = (sys.executable, "-m", "ftexp")
# What is called -> its command and its exit code. A run has no audit features, which another network computes.
CALLS = {
    TORCH: ((sys.executable, "-c", TORCH), 0),
    "a run on 24 pictures": ((*FTEXP, *RUN, "audit.features=false"), 0),
    "--help": ((*FTEXP, "--help"), 0),
    "--cfg job": ((*FTEXP, "--cfg", "job"), 0),
    "a misspelt key": ((*FTEXP, "stage.epoch=3"), 1),
}


def start_up(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure all calls in turn, in a new folder each, after a round that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in CALLS}
    for _ in range(arguments.rounds + 1):
        for name, (command, code) in CALLS.items():
            taken[name].append(seconds_of(command, code))
    rounds = {name: outcomes[1:] for name, outcomes in taken.items()}
    return [row(name, rounds[name], rounds[TORCH]) for name in CALLS]


def seconds_of(command: Sequence[str], code: int) -> tuple[float, float]:
    """Seconds by the clock, and of the processor, of a process in a folder with 24 pictures."""
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder) / "pictures")
        started = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == code, f"{' '.join(command)} ended with {process.returncode}"
        return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def draw_pictures(root: Path) -> None:
    """Two classes of 12 plain pictures each."""
    for name, colour in (("light", 220), ("dark", 30)):
        (root / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (40, 30 + number), (colour, colour - number, colour)).save(root / name / f"{number}.jpg")


def row(name: str, taken: Sequence[tuple[float, float]], torch: Sequence[tuple[float, float]]) -> dict[str, object]:
    """A row of the table; ratios are those of seconds in the same round. Those of the clock need an idle machine."""
    by_clock, of_processor = zip(*taken, strict=True)
    pairs = list(zip(taken, torch, strict=True))
    return {
        "date": date.today().isoformat(),
        "call": name,
        "seconds": _spread(by_clock),
        "processor seconds": _spread(of_processor),
        f"times {TORCH}, clock": _spread([mine[0] / other[0] for mine, other in pairs]),
        f"times {TORCH}, processor": _spread([mine[1] / other[1] for mine, other in pairs]),
        "n": len(taken),
        "machine": machine(),
        "versions": versions(),
    }


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
