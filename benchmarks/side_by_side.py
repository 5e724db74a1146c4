"""Compares ftexp with a hand-written loop, fastai, Lightning with finetuning-scheduler, timm and transformers' Trainer.

    python -m benchmarks.side_by_side TABLE [--root FOLDER] [--image-size 224] [--epochs 20] [--rounds 5] [--sides ...]
                                      [--python PYTHON] [--allocator kept] [--log FILE] [--device cpu]

TABLE is ``head``, ``partial``, ``sweep`` (20 trials compared with 20 runs of the hand-written loop) or ``start`` (a
whole run on 24 tiny pictures, ``--help`` and a misspelt key beside ``import torch``). Every framework runs as a whole
process on the same images, weights, epochs and batches; they take turns, A B A B, and each round has another seed.
``pip install 'ftexp[benchmarks]'`` installs the others; if they are in another environment, ``--python`` is its
interpreter.

FOLDER has ``train/CLASS`` and ``val/CLASS``; without one, scikit-learn's handwritten digits are written as files. ftexp
begins every round with an empty cache. ``head``, ``partial`` and ``sweep`` compare training, so ftexp's audit and
tracking are off: the others have none. ftexp needs a test split, which is one image of each class of ``val``, so that
all train on the same images. With ``--allocator kept``, all get the setting of glibc that ftexp makes itself, which
about halves the time of the others; without it, they run as installed. With ``--log``, an interrupted comparison
continues, and outcomes that another table has measured are used. Appends a table to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from benchmarks.image_folders import folder_or_digits, with_test_split
from benchmarks.processes import (
    KEEP_FREED_MEMORY,
    Log,
    Outcome,
    Reached,
    interpreter,
    last_line,
    read_run,
    run_process,
    take_turns,
)
from benchmarks.results import append_rows, machine, versions
from benchmarks.start_up import start_up
from ftexp.report.tables import format_table

FRAMEWORKS = Path(__file__).with_name("frameworks")
OTHERS = ("chapter", "fastai", "lightning", "timm", "transformers")
SIDES = ("ftexp", *OTHERS)


def ftexp_command(arguments: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "ftexp"),
        "data=imagefolder",
        f"data.root={with_test_split(arguments.root, folder)}",
        f"data.image_size={arguments.image_size}",
        f"stage={arguments.stage}",
        f"stage.epochs={arguments.epochs}",
        f"runtime.seed={seed}",
        f"runtime.device={arguments.device}",
        f"runtime.cache_folder={folder}/cache",
        f"hydra.run.dir={folder}/run",
        "tracking=none",
        "audit.on_leak=off",
    ]


def other_command(side: str, arguments: argparse.Namespace, seed: int) -> list[str]:
    script = FRAMEWORKS / ("chapter.py" if side == "chapter" else f"{side}_side.py")
    return [
        *(str(arguments.python), str(script), "--root", str(arguments.root), "--stage", arguments.stage),
        *("--epochs", str(arguments.epochs), "--image-size", str(arguments.image_size), "--seed", str(seed)),
        *("--workers", str(arguments.workers), "--device", arguments.device),
    ]


def train(side: str, arguments: argparse.Namespace, seed: int) -> Outcome:
    """Run one training."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, variables = Path(temporary), allocator(arguments)
        if side != "ftexp":
            return run_process(other_command(side, arguments, seed), folder, last_line, variables)
        command = ftexp_command(arguments, seed, folder)
        return run_process(command, folder, lambda _: read_run(folder / "run"), variables)


def sweep(arguments: argparse.Namespace, seed: int) -> Outcome:
    """Run one sweep of ftexp with ``arguments.trials`` trials."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sweeper = ["-m", f"hydra.sweeper.n_trials={arguments.trials}", f"hydra.sweep.dir={folder}/sweep"]
        command = [*ftexp_command(arguments, seed, folder), *sweeper]
        return run_process(command, folder, lambda _: best_of_trials(folder / "sweep"), allocator(arguments))


def allocator(arguments: argparse.Namespace) -> dict[str, str]:
    return {"GLIBC_TUNABLES": KEEP_FREED_MEMORY} if arguments.allocator == "kept" else {}


def best_of_trials(sweep: Path) -> Reached:
    trials = [read_run(metrics.parent) for metrics in sweep.glob("[0-9]*/metrics.csv")]
    return Reached(max(trial.accuracy for trial in trials if trial.accuracy is not None))


def measure(side: str, arguments: argparse.Namespace, seed: int, log: Log) -> Outcome:
    """Measure one process; for ``sweep``, one run of a framework without sweeps, times the number of trials."""
    is_sweep = arguments.table == "sweep"
    what = f"{side} {arguments.stage}" + (f" {arguments.trials} trials" if is_sweep and side == "ftexp" else "")
    on = "" if arguments.device == "cpu" else f" on {arguments.device}"
    data = f"{arguments.root.name} {arguments.image_size} px, {arguments.workers} workers{on}"
    where = f"{data}, {arguments.epochs} epochs, {arguments.allocator}"
    if is_sweep and side == "ftexp":
        return log.once(f"{what}, {where}, seed {seed}", lambda: sweep(arguments, seed))
    outcome = log.once(f"{what}, {where}, seed {seed}", lambda: train(side, arguments, seed))
    return replace(outcome, seconds=outcome.seconds * arguments.trials) if is_sweep else outcome


def compare(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure all in turn, round after round; a row each, with ratios to the first one of the same round."""
    log = Log(arguments.log)
    with folder_or_digits(arguments.root) as arguments.root:
        outcomes = take_turns(
            arguments.sides,
            arguments.rounds,
            lambda side, seed: measure(side, arguments, seed, log),
            lambda outcome: f"{outcome.seconds:7.1f} s  {outcome.accuracy}",
        )
    return [row(side, outcomes, arguments) for side in outcomes]


def row(side: str, outcomes: dict[str, list[Outcome]], arguments: argparse.Namespace) -> dict[str, object]:
    seconds = [outcome.seconds for outcome in outcomes[side]]
    accuracies = [outcome.accuracy for outcome in outcomes[side] if outcome.accuracy is not None]
    ratios = [mine / first.seconds for mine, first in zip(seconds, outcomes[arguments.sides[0]], strict=True)]
    return {
        "date": date.today().isoformat(),
        "data": f"{arguments.root.name} at {arguments.image_size} px",
        "stage": arguments.stage,
        "epochs": arguments.epochs,
        "allocator": arguments.allocator,
        "side": side,
        "seconds": f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"times {arguments.sides[0]}": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        "n": len(seconds),
        "val accuracy": f"{statistics.mean(accuracies):.4f} ({min(accuracies):.4f} to {max(accuracies):.4f})",
        "peak MiB": f"{statistics.median(outcome.peak_mib for outcome in outcomes[side]):.0f}",
        "machine": machine(),
        "versions": versions(),
    }


TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], list[dict[str, object]]]]] = {
    "head": ("Head beside other frameworks", compare),
    "partial": ("Partial beside other frameworks", compare),
    "sweep": ("A sweep beside as many runs of the chapter's loop", compare),
    "start": ("The start beside import torch", start_up),
}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--python", type=interpreter, default=Path(sys.executable))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--sides", nargs="+", choices=SIDES)
    parser.add_argument("--allocator", choices=["default", "kept"], default="default")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    arguments.stage = "partial" if arguments.table == "partial" else "head"
    arguments.sides = arguments.sides or (("ftexp", "chapter") if arguments.table == "sweep" else SIDES)
    section, make_rows = TABLES[arguments.table]
    rows = make_rows(arguments)
    print(format_table(rows))
    append_rows(section, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
