"""Does a stage gain from starting with the solved head? Test accuracy, and epochs until a validation score is reached.

    python -m benchmarks.head_init --root FOLDER --cells cells.jsonl [--stages partial full] [--per-class 10 50 0]
    python -m benchmarks.head_init --cells cells.jsonl --table

Each cell is one run: a set, a number of training images a class (0: all), a stage, a start and a seed, which also draws
the splits; validation and test have the same images for every cell of a seed. Cells that the file has are left out, so
the command may be stopped at any time. ``--root`` has a folder a class, below train/ and val/ or not; without it, the
digits of scikit-learn are used. ``--table`` adds the rows to benchmarks/results.md: the test accuracy at the best epoch
by validation, and the epochs until validation is within a point of the best that the random start reached with the
same seed (0: the solved head alone does; runs that never do count as one epoch more than they have).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import ftexp
from benchmarks.image_folders import folder_or_digits
from benchmarks.results import append_rows, machine, versions
from ftexp.run import run

SECTION = "Starting from the solved head"
# Name of a start -> head.init, the factor of all rates, and the factor of the head's rate besides.
STARTS: dict[str, tuple[str, float, float]] = {
    "random": ("random", 1.0, 1.0),
    "solved": ("solved", 1.0, 1.0),
    "solved, head x 0.1": ("solved", 1.0, 0.1),
    "solved, rates x 0.3": ("solved", 0.3, 1.0),
    "random, rates x 0.3": ("random", 0.3, 1.0),
}
HEAD_RATE, BACKBONE_RATE = 1e-3, 5e-4
VAL, TEST = 300, 500  # at most; of smaller sets a fifth and three tenths
POINT = 0.01
Cell = dict[str, Any]


def drawn_data(root: Path, per_class: int, seed: int, image_size: int, folder: Path) -> list[str]:
    """Write a table of the images with their splits into a folder; the settings of a run on these data."""
    draw(root, per_class, seed, folder / "images.csv")
    return [
        *("data=manifest", f"data.file={folder}/images.csv", f"data.root={root}", "data.split_column=split"),
        *(f"data.image_size={image_size}", f"runtime.seed={seed}", f"runtime.cache_folder={folder}/cache"),
        *("tracking=none", "audit.on_leak=off"),
    ]


def draw(root: Path, per_class: int, seed: int, table: Path) -> None:
    """Write a table of the images with their splits."""
    images = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    order = np.random.default_rng(seed).permutation(len(images))
    test, val = min(TEST, round(0.3 * len(images))), min(VAL, round(0.2 * len(images)))
    seen: dict[str, int] = defaultdict(int)
    rows = [("path", "label", "split")]
    for position, number in enumerate(order):
        path, label = str(images[number].resolve()), images[number].parent.name
        split = "test" if position < test else "val" if position < test + val else "train"
        seen[label] += split == "train"
        if split != "train" or not per_class or seen[label] <= per_class:
            rows.append((path, label, split))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def measure(root: Path, cell: Cell, size: int) -> Cell:
    """The validation scores of every epoch, that of the solved head, and the test score."""
    init, rates, head = STARTS[cell["start"]]
    with tempfile.TemporaryDirectory() as folder:
        data = drawn_data(root, cell["per class"], cell["seed"], size, Path(folder))
        config = ftexp.compose(
            f"stage={cell['stage']}",
            *([f"stage.epochs={cell['epochs']}"] if cell["epochs"] else []),
            f"head.init={init}",
            "head.depth=last",
            "head.depth=last",
            f"optimizer.head_lr={HEAD_RATE * rates * head}",
            f"optimizer.backbone_lr={BACKBONE_RATE * rates}",
            "runtime.device=cpu",
            *data,
        )
        result = run(config, Path(folder) / "run", resumable=False)
        with (result.folder / "metrics.csv").open(newline="") as file:
            scores = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
        solution = result.folder / "solution.json"
        first = _of_solution(json.loads(solution.read_text())) if solution.exists() else None
    assert result.test is not None
    test, val = result.test["accuracy"], result.value
    return {**cell, "test": test, "val": val, "val by epoch": scores, "val of the solved head": first}


def _of_solution(content: Cell) -> float:
    value: float = next(p["val_metric"] for p in content["path"] if p["strength"] == content["strength"])
    return value


def epochs_needed(cell: Cell, target: float) -> int:
    """The number of the first epoch that reaches the target; 0: the start does; one more than there are: none."""
    if cell["val of the solved head"] is not None and cell["val of the solved head"] >= target:
        return 0
    scores: list[float] = cell["val by epoch"]
    return next((number for number, score in enumerate(scores, 1) if score >= target), len(scores) + 1)


def _mean_need(pairs: Sequence[tuple[Cell, Cell]]) -> float:
    return statistics.fmean(epochs_needed(cell, other["val"] - POINT) for cell, other in pairs)


def rows_of(cells: Sequence[Cell]) -> Iterator[dict[str, object]]:
    groups: dict[tuple[Any, ...], dict[str, dict[int, Cell]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells:
        key = cell["set"], cell["per class"], cell["stage"]
        groups[key][cell["start"]][cell["seed"]] = cell
    for (name, per_class, stage), starts in sorted(groups.items()):
        base = starts["random"]
        for start, of_seed in sorted(starts.items()):
            pairs = [(cell, base[seed]) for seed, cell in sorted(of_seed.items()) if seed in base]
            if not pairs:
                continue
            yield {
                "date": date.today().isoformat(),
                "set": name,
                "images a class": per_class or "all",
                "stage": stage,
                "start": start,
                "test accuracy": _spread([cell["test"] for cell, _ in pairs]),
                "gain": _spread([cell["test"] - other["test"] for cell, other in pairs]),
                "val accuracy": _spread([cell["val"] for cell, _ in pairs]),
                "epochs needed": f"{_mean_need(pairs):.1f}",
                "of": len(pairs[0][0]["val by epoch"]),
                "n": len(pairs),
                "machine": machine(),
                "versions": versions(),
            }


def _spread(values: Sequence[float]) -> str:
    """Mean and standard error."""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--stages", nargs="+", default=["partial"])
    parser.add_argument("--per-class", nargs="+", type=int, default=[10, 50, 0])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=["random", "solved"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="0: those of the stage")
    parser.add_argument("--image-size", type=int, default=96)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    lines = given.cells.read_text().splitlines() if given.cells.exists() else []
    done: list[Cell] = [json.loads(line) for line in lines]
    if given.table:
        append_rows(SECTION, list(rows_of(done)))
        return
    keys = "set", "stage", "per class", "start", "seed", "epochs"
    known = {tuple(cell[key] for key in keys) for cell in done}
    with folder_or_digits(given.root) as root:
        name = f"{given.root.name if given.root else 'digits'} at {given.image_size} px"
        for seed, *rest in product(range(given.seeds), given.stages, given.per_class, given.starts):
            cell = dict(zip(keys, (name, *rest, seed, given.epochs), strict=True))
            if tuple(cell.values()) in known:
                continue
            measured = measure(root, cell, given.image_size)
            with given.cells.open("a") as file:
                file.write(json.dumps(measured) + "\n")
            print(cell, measured["test"], measured["val by epoch"], measured["val of the solved head"], flush=True)


if __name__ == "__main__":
    main()
