"""What does a run copy from and to the device, and how often does it wait for it?

    python -m benchmarks.copies [--jobs full staged ...] [--lines]

Runs ``python -m ftexp`` in this process on the pretended accelerator (benchmarks/pretended), a tiny network on 48 small
pictures, one job after the other. It needs no GPU. A step copies and waits as it does on a GPU, whatever the network
and the images are. Appends a table to benchmarks/results.md; ``--lines`` prints which lines wait between two steps.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from benchmarks.pretended.backend import pretended
from benchmarks.pretended.watch import Pass, watched
from benchmarks.results import append_rows, versions
from ftexp.__main__ import main as ftexp
from ftexp.machine.memory_budget import MemoryBudget
from ftexp.report.recorder import Recorder
from ftexp.report.tables import format_table

SETTINGS = (
    *("model=timm", "model.name=test_efficientnet", "model.weights=null", "data=imagefolder", "data.root=pictures"),
    *("data.image_size=32", "train.batch_size=8", "runtime.device=pretended", "runtime.workers=0", "tracking=none"),
    *("audit.on_leak=off", "audit.features=false", "runtime.cache_folder=cache", "hydra.run.dir=run"),
)
SHORT = ("stage.epochs=2",)
FULL = ("stage=full", "augment=none", *SHORT)


@dataclass(frozen=True, slots=True)
class Job:
    """What is run, and on what kind of device.

    Attributes:
        calls: the arguments of each call of ``python -m ftexp``, one after the other; the last one is counted.
        fits: whether the device has room for images and activations.
        interrupted: whether the first call is interrupted after its first epoch.
    """

    calls: tuple[tuple[str, ...], ...]
    fits: bool = True
    interrupted: bool = False


def of(*settings: str, fits: bool = True) -> Job:
    return Job(((*SETTINGS, *settings),), fits)


PARTIAL = (*SETTINGS, "stage=partial", *SHORT)
JOBS = {
    "head, solved": of("stage=head"),
    "head, by steps": of("stage=head", "head.solver=sgd", *SHORT),
    "partial": Job((PARTIAL,)),
    "partial, activations in a file": Job((PARTIAL,), fits=False),
    "partial, 2 views": of("stage=partial", "augment=light", "augment.views=2", *SHORT),
    "full": of(*FULL),
    "full, images in a file": of(*FULL, fits=False),
    "full, fresh views": of("stage=full", "augment=light", *SHORT),
    "full, fresh views in a file": of("stage=full", "augment=light", *SHORT, fits=False),
    "full, fresh views by a policy": of("stage=full", "augment=medium", *SHORT),
    "full, mixed": of(*FULL, "augment.mixup=0.2", "augment.cutmix=1"),
    "full, decoded in every epoch": of(*FULL, "runtime.pixels=off"),
    "full, decoded by a process": of(*FULL, "runtime.pixels=off", "runtime.workers=1"),
    "staged": of("stage=staged", "stage.gate=off", *SHORT),
    "two trials of a sweep": of("stage=partial", *SHORT, "--multirun", "hydra.sweeper.n_trials=2"),
    "resumed after an epoch": Job(((*SETTINGS, *FULL), ("resume=run",)), interrupted=True),
    "evaluate": Job((PARTIAL, ("evaluate", "run", "--device", "pretended", "--batch-size", "4"))),
    "predict": Job((PARTIAL, ("predict", "run", "pictures", "--device", "pretended", "--batch-size", "4"))),
}


def draw(folder: Path) -> None:
    """Noise around three colours, 16 pictures each."""
    rng = np.random.default_rng(0)
    for label, colour in (("blue", (60, 60, 200)), ("green", (60, 200, 60)), ("red", (200, 60, 60))):
        (folder / label).mkdir(parents=True)
        for number in range(16):
            pixels = np.clip(colour + rng.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def measure(job: Job) -> list[Pass]:
    """Run a job in the working folder; returns the passes of its last call."""
    with pretended() as counts:
        for number, arguments in enumerate(job.calls):
            with watched(counts) as passes, _room(job.fits), _cut(job.interrupted and number == 0):
                code = _call(arguments)
            expected = 130 if job.interrupted and number == 0 else 0
            assert code == expected, f"ftexp {' '.join(arguments)} ended with {code}"
    return passes


def _call(arguments: Sequence[str]) -> Any:
    GlobalHydra.instance().clear()
    with mock.patch.object(sys, "argv", ["ftexp", *arguments]):
        try:
            ftexp()
        except SystemExit as ended:
            return ended.code or 0
    return 0


@contextmanager
def _room(fits: bool) -> Iterator[None]:
    """Without room on the device, everything stays in files."""
    if fits:
        yield
        return
    with mock.patch.object(MemoryBudget, "take", return_value=False):
        yield


@contextmanager
def _cut(interrupted: bool) -> Iterator[None]:
    """Ctrl-C after the first epoch."""
    if not interrupted:
        yield
        return
    report: Callable[..., None] = Recorder.epoch

    def epoch(*args: Any) -> None:
        report(*args)
        os.kill(os.getpid(), signal.SIGINT)

    with mock.patch.object(Recorder, "epoch", epoch):
        yield


def rows_of(name: str, passes: Sequence[Pass]) -> list[dict[str, object]]:
    """A row for each kind of pass, with the first one and the last one, and the most waits of any of them."""
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(part.kind for part in passes):
        own = [part for part in passes if part.kind == kind and len(part.steps) > 1]
        if not own:
            continue
        first, last = own[0], own[-1]
        rows.append(
            {
                "job": name,
                "pass": kind,
                "steps": len(first.steps),
                "a step: to the device": _both(first, last, lambda p: p.between.to_device / (len(p.steps) - 1)),
                "to the host": _both(first, last, lambda p: p.between.to_host / (len(p.steps) - 1)),
                "waits": f"{max(part.between.waits / (len(part.steps) - 1) for part in own):.3g}",
                "else in the pass: to the device": _both(first, last, lambda p: p.around.to_device),
                "else to the host": _both(first, last, lambda p: p.around.to_host),
                "else waits": _both(first, last, lambda p: p.around.waits),
            }
        )
    return rows


def _both(first: Pass, last: Pass, of_pass: Callable[[Pass], float]) -> str:
    """Of the first pass and of the last one, where they differ."""
    numbers = [f"{of_pass(part):.3g}" for part in (first, last)]
    return numbers[0] if numbers[0] == numbers[1] else ", then ".join(numbers)


def main(given: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Run the jobs and append their table; returns its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--lines", action="store_true")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    rows: list[dict[str, object]] = []
    for name in arguments.jobs:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            draw(Path("pictures"))
            passes = measure(JOBS[name])
        rows += rows_of(name, passes)
        if arguments.lines:
            for part in passes:
                print(name, part.kind, part.between, *part.lines.items(), sep="\n    ")
    print(format_table([{key: str(value) for key, value in row.items()} for row in rows]))
    facts = {"date": date.today().isoformat(), "versions": versions()}
    results = {"path": arguments.results} if arguments.results else {}
    append_rows("Copies and waits, on a pretended accelerator", [{**row, **facts} for row in rows], **results)
    return rows


if __name__ == "__main__":
    main()
