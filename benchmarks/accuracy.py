"""Compares how accurate ftexp's defaults and other programs are after equal wall time: data sets x sides x seeds.

    python -m benchmarks.accuracy --data NAME=FOLDER ... --log FILE [--minutes 3] [--seeds 0 1 2] [--sides ftexp plain]
                                  [--ftexp-minutes 0.3 3] [--stage auto] [--python SIDE=PYTHON ...] [--image-size 224]
                                  [--cells 1]

FOLDER has ``train/CLASS`` and ``test/CLASS`` (or ``val/CLASS``, which is the test then), or only ``CLASS``, of which a
quarter becomes the test. A fifth of train is for validation, the same for all sides and seeds. Every cell is a process
of its own, which gets the same minutes, predicts the test images and writes their probabilities; accuracy, macro F1 and
calibration error are computed here, of all sides alike. FILE keeps a line for each cell: the same command goes on with
the cells that are missing, ``--cells`` says how many at most. A side is a program in ``benchmarks/frameworks``
(``SIDE_accuracy.py``: fastai, lightning, transformers, autogluon, lightly); ``--python`` gives it an interpreter of
another environment. A side that cannot run is named with the reason. At the end, the table of all cells goes to
benchmarks/results.md, with paired tests against the first side. ``--ftexp-minutes`` gives ftexp other times than the
others: a row for each, and each of the others is tested against all of them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import wilcoxon
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from benchmarks.processes import Reached, run_process
from benchmarks.results import append_rows, machine, versions
from ftexp.report.tables import format_table

FRAMEWORKS = Path(__file__).with_name("frameworks")
FTEXP = "ftexp"
VAL_SHARE, TEST_SHARE, BINS = 0.2, 0.25, 15
SECTION = "Accuracy at equal wall time"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a side: its scores on the test images, or the reason why there are none."""

    data: str
    side: str
    seed: int
    minutes: float
    accuracy: float | None = None
    macro_f1: float | None = None
    calibration_error: float | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str, int, float]:
        return self.data, self.side, self.seed, self.minutes


def split_folder(given: Path, folder: Path) -> Path:
    """A folder of links with ``train``, ``val`` and ``test``; the cut depends on the names of the images alone."""
    test = next((given / name for name in ("test", "val") if (given / name).is_dir()), None)
    train = images_of(given / "train") if test else images_of(given)
    if test is None:
        train, tested = cut(train, TEST_SHARE)
    else:
        tested = images_of(test)
    train, val = cut(train, VAL_SHARE)
    for split, images in (("train", train), ("val", val), ("test", tested)):
        for image, label in images:
            link = folder / split / label / image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image.resolve())
    return folder


def images_of(folder: Path) -> list[tuple[Path, str]]:
    return [(file, one.name) for one in sorted(folder.iterdir()) if one.is_dir() for file in sorted(one.iterdir())]


def cut(images: list[tuple[Path, str]], share: float) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    rest, taken = train_test_split(images, test_size=share, stratify=[label for _, label in images], random_state=0)
    return rest, taken


def scores(predictions: Path, root: Path) -> dict[str, float]:
    """Accuracy, macro F1 and expected calibration error of a table with the probabilities of every test image."""
    with predictions.open(newline="") as file:
        (_, *classes), *rows = list(csv.reader(file))
    truth = [Path(row[0]).parts[0] for row in rows]
    found, wanted = {row[0] for row in rows}, {f"{label}/{image.name}" for image, label in images_of(root / "test")}
    assert found == wanted, f"{len(wanted - found)} test images have no prediction"
    chances = np.array([[float(value) for value in row[1:]] for row in rows])
    labels = np.array([classes.index(label) for label in truth])
    predicted, confidence = chances.argmax(axis=1), chances.max(axis=1)
    right = predicted == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    macro = float(f1_score(labels, predicted, average="macro"))
    return {"accuracy": float(right.mean()), "macro_f1": macro, "calibration_error": float(sum(gaps))}


def ftexp_script(arguments: argparse.Namespace) -> list[str]:
    return ["-m", "benchmarks.frameworks.ftexp_accuracy", "--stage", arguments.stage]


def measure(cell: Cell, root: Path, arguments: argparse.Namespace, folder: Path) -> Cell:
    """Run a side once."""
    script = FRAMEWORKS / f"{cell.side}_accuracy.py"
    begin = ftexp_script(arguments) if cell.side == FTEXP else [str(script)]
    predictions = folder / "predictions.csv"
    given = {
        "root": root,
        "seconds": 60 * cell.minutes,
        "seed": cell.seed,
        "image-size": arguments.image_size,
        "device": arguments.device,
        "predictions": predictions,
    }
    options = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    command = [arguments.pythons.get(cell.side, sys.executable), *begin, *options]
    try:
        if cell.side != FTEXP and not script.exists():
            raise RuntimeError(f"there is no {script.name} in benchmarks/frameworks")
        outcome = run_process(command, folder, lambda _: Reached())
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1][:200]
        return Cell(*cell.key, reason=reason)
    return Cell(*cell.key, **scores(predictions, root), seconds=outcome.seconds, peak_mib=outcome.peak_mib)


def read_log(file: Path) -> list[Cell]:
    return [Cell(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def missing(arguments: argparse.Namespace, known: Sequence[Cell]) -> Iterator[Cell]:
    """The cells that have not been measured, seed by seed, so that the sides take turns."""
    done = {cell.key for cell in known}
    for seed, data, side in product(arguments.seeds, arguments.data, arguments.sides):
        for minutes in minutes_of(side, arguments):
            cell = Cell(data, side, seed, minutes)
            if cell.key not in done:
                yield cell


def minutes_of(side: str, arguments: argparse.Namespace) -> list[float]:
    return list(arguments.ftexp_minutes) if side == FTEXP and arguments.ftexp_minutes else [arguments.minutes]


def rows(cells: Sequence[Cell], arguments: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each data set, side and time, and the paired tests of each side against the first over all cells."""
    table: list[dict[str, object]] = []
    timed = [(side, minutes) for side in arguments.sides for minutes in minutes_of(side, arguments)]
    for data, (side, minutes) in product(arguments.data, timed):
        mine = [cell for cell in cells if (cell.data, cell.side, cell.minutes) == (data, side, minutes)]
        good = [cell for cell in mine if cell.accuracy is not None]
        row: dict[str, object] = {"date": date.today().isoformat(), "data": data, "side": side, "n": len(good)}
        row["minutes"] = minutes
        for name in ("accuracy", "macro_f1", "calibration_error", "seconds", "peak_mib"):
            row[name] = spread([float(getattr(cell, name)) for cell in good])
        row[f"{arguments.sides[0]} against it"] = paired_tests(cells, side, arguments)
        row["not run"] = next((cell.reason for cell in mine if cell.reason), "")
        table.append({**row, "machine": machine(), "versions": versions()})
    return table


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.4g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{deviation}"


def paired_tests(cells: Sequence[Cell], side: str, arguments: argparse.Namespace) -> str:
    """How much better the first side is, in the mean over data sets and seeds, for each of its times.

    Wilcoxon's signed-rank test of the accuracies in pairs; only cells that both have count.
    """
    first, found = arguments.sides[0], []
    of = {cell.key: cell.accuracy for cell in cells if cell.accuracy is not None}
    for minutes in minutes_of(first, arguments):
        keys = [
            ((d, first, s, minutes), (d, side, s, arguments.minutes)) for d in arguments.data for s in arguments.seeds
        ]
        gains = [of[a] - of[b] for a, b in keys if a in of and b in of]
        if side != first and gains:
            p = f", p = {wilcoxon(gains).pvalue if any(gains) else 1:.3f}" if len(gains) > 1 else ""
            found.append(f"{minutes:g} min: {statistics.mean(gains):+.4f}{p} (n = {len(gains)})")
    return "; ".join(found)


def main(given: Sequence[str] | None = None) -> None:
    def named(text: str) -> tuple[str, str]:
        name, sign, value = text.partition("=")
        if not sign:
            raise argparse.ArgumentTypeError(f"{text}: write NAME=PATH")
        return name, value

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", nargs="+", type=named, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--ftexp-minutes", nargs="+", type=float, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", default=[FTEXP, "plain"])
    parser.add_argument("--stage", default="auto")
    parser.add_argument("--python", nargs="+", type=named, default=[])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cells", type=int, default=None)
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    arguments.data, arguments.pythons = dict(arguments.data), dict(arguments.python)
    known = read_log(arguments.log)
    for number, cell in enumerate(missing(arguments, known)):
        if number == arguments.cells:
            print(f"{arguments.cells} cells were measured; the same command goes on.")
            return
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            root = split_folder(Path(arguments.data[cell.data]), folder / cell.data)
            (folder / "work").mkdir()
            measured = measure(cell, root, arguments, folder / "work")
        known.append(measured)
        with arguments.log.open("a") as file:
            file.write(json.dumps(asdict(measured)) + "\n")
        what = f"{cell.data} {cell.side} seed {cell.seed}, {cell.minutes:g} min"
        print(f"{what}: {measured.reason or measured.accuracy}", flush=True)
    table = rows(known, arguments)
    print(format_table(table))
    append_rows(SECTION, table, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    main()
