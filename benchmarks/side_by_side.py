"""ftexp beside the chapter's loop, fastai, Lightning with finetuning-scheduler and transformers' Trainer.

    python -m benchmarks.side_by_side TABLE --root FOLDER [--python PYTHON] [--epochs 20] [--rounds 5] [--sides ...]

TABLE is ``head``, ``partial``, ``sweep`` (20 trials against as many runs of the chapter's loop) or
``start``. Every side is a whole process on the same images, weights, epochs and batches; they take turns, A B A B, and
each round has a seed of its own. The others run in an environment of their own, which ``--python`` names:

    uv venv others && uv pip install --python others/bin/python -r benchmarks/frameworks/requirements.txt

FOLDER has ``train/CLASS`` and ``val/CLASS``. ftexp begins every round with nothing kept from the one before.
``head``, ``partial`` and ``sweep`` compare training, so ftexp's audit of the data and its tracking are off: the others
have none. The test split that ftexp insists on is one image of each class of ``val``, so that all train on the same
images. Appends a table to benchmarks/results.md.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.results import append_rows, machine, versions
from ftexp.report.tables import format_table

FRAMEWORKS = Path(__file__).with_name("frameworks")
OTHERS = ("chapter", "fastai", "lightning", "transformers")
SIDES = ("ftexp", *OTHERS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one process took and reached.

    Attributes:
        accuracy: the best on validation; None where nothing was trained.
        peak_mib: largest resident memory of the process and of each of its children.
    """

    seconds: float
    accuracy: float | None
    peak_mib: float


def run_process(command: Sequence[str], folder: Path, read: Callable[[str], float | None]) -> Outcome:
    """Run a program to its end in a folder; ``read`` finds the accuracy in what it printed."""
    started = time.perf_counter()
    with (folder / "stdout").open("w+") as stdout, (folder / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=stderr, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{stderr.read()[-2000:]}")
        return Outcome(seconds, read(stdout.read()), usage.ru_maxrss / 2**10)


def environment() -> dict[str, str]:
    """The same for all; byte code may be written, so that no side compiles its sources each time."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[1])}


def with_test_split(root: Path, folder: Path) -> Path:
    """A folder with links to the images of another, and one of each class's validation images as its test split."""
    data = folder / "data"
    for split in ("train", "val"):
        for images in sorted((root / split).iterdir()):
            (data / split).mkdir(parents=True, exist_ok=True)
            (data / split / images.name).symlink_to(images, target_is_directory=True)
            if split == "val":
                (data / "test" / images.name).mkdir(parents=True)
                image = min(images.iterdir())
                (data / "test" / images.name / image.name).symlink_to(image)
    return data


def ftexp_command(arguments: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "ftexp"),
        "data=imagefolder",
        f"data.root={with_test_split(arguments.root, folder)}",
        f"data.image_size={arguments.image_size}",
        f"stage={arguments.stage}",
        f"stage.epochs={arguments.epochs}",
        f"runtime.seed={seed}",
        "runtime.device=cpu",
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
        *("--workers", str(arguments.workers)),
    ]


def train(side: str, arguments: argparse.Namespace, seed: int, folder: Path) -> Outcome:
    """One training."""
    if side != "ftexp":
        return run_process(other_command(side, arguments, seed), folder, last_accuracy)
    return run_process(ftexp_command(arguments, seed, folder), folder, lambda _: best_accuracy(folder / "run"))


def sweep(side: str, arguments: argparse.Namespace, seed: int, folder: Path) -> Outcome:
    """As many trials; the others have no sweep, so one of their runs is taken times the number of trials."""
    if side != "ftexp":
        one = train(side, arguments, seed, folder)
        return Outcome(one.seconds * arguments.trials, one.accuracy, one.peak_mib)
    command = ftexp_command(arguments, seed, folder)
    sweeper = ["-m", f"hydra.sweeper.n_trials={arguments.trials}", f"hydra.sweep.dir={folder}/sweep"]
    return run_process([*command, *sweeper], folder, lambda _: None)


def last_accuracy(printed: str) -> float:
    return float(json.loads(printed.strip().splitlines()[-1])["accuracy"])


def best_accuracy(run: Path) -> float:
    with (run / "metrics.csv").open() as file:
        return max(float(row["val_accuracy"]) for row in csv.DictReader(file))


def compare(measure: Callable[..., Outcome], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """All sides in turn, round after round; a row each, and ratios to ftexp round by round."""
    outcomes: dict[str, list[Outcome]] = {side: [] for side in arguments.sides}
    for seed in range(arguments.rounds):
        for side in arguments.sides:
            with tempfile.TemporaryDirectory() as folder:
                outcome = measure(side, arguments, seed, Path(folder))
            outcomes[side].append(outcome)
            print(f"round {seed + 1}  {side:12} {outcome.seconds:7.1f} s  {outcome.accuracy}", flush=True)
    return [row(side, outcomes, arguments) for side in arguments.sides]


def row(side: str, outcomes: dict[str, list[Outcome]], arguments: argparse.Namespace) -> dict[str, object]:
    seconds = [outcome.seconds for outcome in outcomes[side]]
    accuracies = [outcome.accuracy for outcome in outcomes[side] if outcome.accuracy is not None]
    pairs = zip(seconds, outcomes[arguments.sides[0]], strict=True)
    return {
        "date": date.today().isoformat(),
        "data": f"{arguments.root.name} at {arguments.image_size} px",
        "stage": arguments.stage,
        "epochs": arguments.epochs,
        "side": side,
        "seconds": f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"times {arguments.sides[0]}": f"{statistics.median(mine / first.seconds for mine, first in pairs):.2f}",
        "n": len(seconds),
        "val accuracy": f"{statistics.mean(accuracies):.4f}" if accuracies else "-",
        "peak MiB": f"{statistics.median(outcome.peak_mib for outcome in outcomes[side]):.0f}",
        "machine": machine(),
        "versions": versions(),
    }


def start_up(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """How long until ``--help`` and the refusal of a misspelt key, after one call that does not count."""
    rows: list[dict[str, object]] = []
    for name, option, code in (("--help", "--help", 0), ("a misspelt key", "stage.epoch=3", 1)):
        seconds = []
        for _ in range(arguments.rounds + 1):
            started = time.perf_counter()
            command = [sys.executable, "-m", "ftexp", option]
            process = subprocess.run(command, capture_output=True, env=environment(), check=False)
            assert process.returncode == code, process.stderr.decode()
            seconds.append(time.perf_counter() - started)
        counted = seconds[1:]
        rows.append(
            {
                "date": date.today().isoformat(),
                "call": name,
                "seconds": f"{statistics.median(counted):.2f} ({min(counted):.2f} to {max(counted):.2f})",
                "n": len(counted),
                "machine": machine(),
                "versions": versions(),
            }
        )
    return rows


TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], list[dict[str, object]]]]] = {
    "head": ("Head beside other frameworks", lambda arguments: compare(train, arguments)),
    "partial": ("Partial beside other frameworks", lambda arguments: compare(train, arguments)),
    "sweep": ("A sweep beside as many runs of the chapter's loop", lambda arguments: compare(sweep, arguments)),
    "start": ("Start-up", start_up),
}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--root", type=Path, default=Path("."))
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    arguments.root = arguments.root.resolve()
    arguments.python = arguments.python.absolute()
    arguments.stage = "partial" if arguments.table == "partial" else "head"
    arguments.sides = arguments.sides or (("ftexp", "chapter") if arguments.table == "sweep" else SIDES)
    section, measure = TABLES[arguments.table]
    rows = measure(arguments)
    print(format_table(rows))
    append_rows(section, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
