"""Which recipe wins? Validation and test scores of fine-tuning with other settings, over data sets and seeds.

    python -m benchmarks.recipes --sets photos=FOLDER cells=FOLDER --cells cells.jsonl [--seeds 0 1 2] [--recipes ...]
                                 [--per-class 120] [--processes 6] [--device cuda] [--minutes 3]
    python -m benchmarks.recipes --cells cells.jsonl --table

Each cell is one run: a set, a recipe of ``RECIPES`` and a seed, which also draws the splits; validation and test have
the same images for every recipe of a seed. Cells that the file has are left out, so the command may be stopped at any
time; ``--minutes`` starts no cell after so many. ``--table`` adds rows to benchmarks/results.md: for each recipe the
mean over sets and seeds of the score at the best epoch by validation, and its paired difference from the first recipe.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.head_init import drawn_data
from benchmarks.results import append_rows, machine, versions

SECTION = "Recipes over data sets and seeds"
_FULL = ("stage=full", "stage.epochs=20", "augment=light")
_MEDIUM = ("stage=full", "stage.epochs=20", "augment=medium")
_SOLVED = (*_MEDIUM, "head.init=solved")
_HALF = ("optimizer.head_lr=5e-4", "optimizer.backbone_lr=2.5e-4")
_THIRD = ("optimizer.head_lr=3e-4", "optimizer.backbone_lr=1.5e-4")
_EMA = "train.ema=0.98"
# As the last phase of stage=auto, from the solved head.
_LAST = (*_SOLVED, _EMA)


def _updates_of_all(times: int) -> tuple[str, ...]:
    """The settings that give the phase of all blocks so many times its updates."""
    budget = "recipe.budgets.cnn.all"
    return f"{budget}.updates={1000 * times}", f"{budget}.max_epochs={30 * times}"


# Name of a recipe -> its settings; the first is the one that the others are compared with.
RECIPES: dict[str, tuple[str, ...]] = {
    "auto": ("stage=auto",),
    "auto, all x 0.2": ("stage=auto", "stage.phases.2.lr_factor=0.2"),
    "auto, all x 0.5": ("stage=auto", "stage.phases.2.lr_factor=0.5"),
    "auto, last x 1": ("stage=auto", "stage.phases.1.lr_factor=1"),
    "auto, no smoothing": ("stage=auto", "loss.label_smoothing=0"),
    "auto, no averages": ("stage=auto", "train.wise_ft=[]"),
    "auto, no augmentation": ("stage=auto", "augment=none"),
    "auto, ends after a dropped block": ("stage=auto", "stage.on_dropped=stop"),
    "auto, gate off": ("stage=auto", "stage.gate=off", "stage.min_errors=0"),
    "auto, no EMA": ("stage=auto", "train.ema=null"),
    "auto, all: twice the updates": ("stage=auto", *_updates_of_all(2)),
    "auto, all: four times the updates": ("stage=auto", *_updates_of_all(4)),
    "partial": ("stage=partial",),
    "head": ("stage=head",),
    "full, solved head, medium": _SOLVED,
    "full, solved head, medium, rates x 0.3": (*_SOLVED, *_THIRD),
    "full, solved head, medium, rates x 0.5, EMA": (*_SOLVED, *_HALF, _EMA),
    "full, solved head, medium, rates x 0.3, EMA": (*_SOLVED, *_THIRD, _EMA),
    "last phase": _LAST,
    "last phase, BatchNorm in training": (*_LAST, "bn_policy=train"),
    "last phase, mixup 0.2": (*_LAST, "augment.mixup=0.2"),
    "last phase, strong": (*_LAST, "augment=strong"),
    "last phase, block decay 0.9": (*_LAST, "optimizer.block_decay=0.9"),
    "last phase, weight decay 0.1": (*_LAST, "optimizer.weight_decay=0.1"),
    "last phase, no smoothing": (*_LAST, "loss.label_smoothing=0"),
    "last phase, five blocks": (*_LAST, "stage=partial", "stage.last_blocks=5"),
    "last phase, four blocks": (*_LAST, "stage=partial", "stage.last_blocks=4"),
    "last phase, 40 epochs": (*_LAST, "stage.epochs=40"),
    "last phase, 80 epochs": (*_LAST, "stage.epochs=80"),
    "full, medium": _MEDIUM,
    "full, light": _FULL,
    "full, strong": ("stage=full", "stage.epochs=20", "augment=strong"),
    "full, no augmentation": ("stage=full", "stage.epochs=20"),
    "full, 40 epochs, medium": ("stage=full", "stage.epochs=40", "augment=medium"),
    "full, rates x 0.3": (*_FULL, *_THIRD),
    "full, rates x 3": (*_FULL, "optimizer.head_lr=3e-3", "optimizer.backbone_lr=1.5e-3"),
    "full, block decay 0.9": (*_FULL, "optimizer.block_decay=0.9"),
    "full, BatchNorm in training": (*_FULL, "bn_policy=train"),
    "full, weight decay 0.1": (*_FULL, "optimizer.weight_decay=0.1"),
    "full, mixup 0.2": (*_FULL, "augment.mixup=0.2"),
    "full, batches of 64": (*_FULL, "train.batch_size=64"),
    "staged, light": ("stage=staged", "augment=light"),
}
Cell = dict[str, Any]
Given = tuple[Path, Cell, str, Sequence[str], float]  # images, cell, device, further settings, when to begin no more


def measure(root: Path, cell: Cell, device: str, settings: Sequence[str] = ()) -> Cell:
    """The scores of one run at its best epoch by validation, with further settings."""
    import ftexp
    from ftexp.run import run

    logging.disable(logging.INFO)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = drawn_data(root, cell["per class"], cell["seed"], cell["image size"], Path(folder))
        config = ftexp.compose(
            *RECIPES[cell["recipe"]],
            f"runtime.device={device}",
            "runtime.compile=false",
            *settings,
            *data,
        )
        result = run(config, Path(folder) / "run", resumable=False)
    assert result.test is not None
    scores = {"val": result.value, "test": result.test["accuracy"], "val loss": result.test.get("loss")}
    return {**cell, **scores, "seconds": time.perf_counter() - started}


def _measured(given: Given) -> Cell | None:
    root, cell, device, settings, until = given
    if time.time() > until:
        return None
    try:
        return measure(root, cell, device, settings)
    except Exception:
        return {**cell, "error": traceback.format_exc()[-1500:]}


def missing_cells(arguments: argparse.Namespace) -> Iterator[Given]:
    known = {tuple(cell[name] for name in ("set", "recipe", "seed", "per class")) for cell in read(arguments.cells)}
    until = time.time() + 60 * arguments.minutes
    for seed in arguments.seeds:
        for recipe in arguments.recipes:
            for given in arguments.sets:
                name, _, folder = given.partition("=")
                if (name, recipe, seed, arguments.per_class) not in known:
                    cell = {"set": name, "recipe": recipe, "seed": seed, "per class": arguments.per_class}
                    size = {"image size": arguments.image_size}
                    yield Path(folder).resolve(), {**cell, **size}, arguments.device, arguments.settings, until


def read(path: Path) -> list[Cell]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows_of(cells: Sequence[Cell]) -> Iterator[dict[str, object]]:
    by_recipe: dict[str, dict[tuple[str, int], Cell]] = defaultdict(dict)
    for cell in cells:
        if "error" not in cell:
            by_recipe[cell["recipe"]][cell["set"], cell["seed"]] = cell
    base = by_recipe[next(iter(RECIPES))]
    for recipe, of_recipe in by_recipe.items():
        both = [(cell, base[key]) for key, cell in of_recipe.items() if key in base]
        if not both:
            continue
        row: dict[str, object] = {"date": date.today().isoformat(), "recipe": recipe}
        for score in ("val", "test"):
            gains = [100 * (cell[score] - first[score]) for cell, first in both]
            spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
            row[score] = f"{statistics.fmean(cell[score] for cell, _ in both):.4f}"
            row[f"{score}, points more"] = f"{statistics.fmean(gains):+.2f} ± {spread:.2f}"
        for name in sorted({cell["set"] for cell, _ in both}):
            of_set = [(c["val"] - b["val"], c["test"] - b["test"]) for c, b in both if c["set"] == name]
            row[name] = " / ".join(f"{100 * statistics.fmean(values):+.1f}" for values in zip(*of_set, strict=True))
        seconds = statistics.median(cell["seconds"] for cell, _ in both)
        yield {**row, "seconds": f"{seconds:.0f}", "n": len(both), "machine": machine(), "versions": versions()}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", nargs="+", default=[], help="NAME=FOLDER of classes")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--per-class", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--settings", nargs="+", default=[], help="of all cells, such as runtime.precision=fp32")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--results", type=Path)
    arguments = parser.parse_args(given)
    # Not daemons, because a run may start processes that load its images.
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(_measured, given) for given in missing_cells(arguments)]):
            cell = done.result()
            if cell is None:
                continue
            with arguments.cells.open("a") as file:
                file.write(json.dumps(cell) + "\n")
            print(json.dumps(cell), flush=True)
    if arguments.table:
        rows = list(rows_of(read(arguments.cells)))
        append_rows(SECTION, rows, *([arguments.results] if arguments.results else []))


if __name__ == "__main__":
    main()
