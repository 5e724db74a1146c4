"""How many random views of an image are enough? Validation accuracy and seconds by ``augment.views``.

    python -m benchmarks.views --root FOLDER [--seeds 3] [--epochs 20] [--image-size 96] [--stages head partial]

Trains on an image folder with ``train/`` and ``val/`` (the bundled EfficientNet-Lite0 weights) from the same seeds with
1, 2, 4 and 8 views, and with new ones in every epoch; every run begins with an empty cache. Appends a table to
benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from datetime import date
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.report.tables import format_table
from ftexp.run import run

VIEWS = ("1", "2", "4", "8", "inf")


def measure(stage: str, augment: str, views: str, seed: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """The best validation accuracy and the seconds of one run."""
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"stage={stage}",
            f"stage.epochs={arguments.epochs}",
            f"augment={augment}",
            f"augment.views={views}",
            "data=imagefolder",
            f"data.root={arguments.root}",
            f"data.image_size={arguments.image_size}",
            f"runtime.seed={seed}",
            f"runtime.cache_folder={folder}/cache",
            "runtime.device=cpu",
            "tracking=none",
            "audit.on_leak=off",
        ]
        config = parse(compose("config", overrides=overrides))
        result = run(config, Path(folder), score_test=False, resumable=False)
    return result.value, result.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--stages", nargs="+", default=["head", "partial"])
    parser.add_argument("--augments", nargs="+", default=["light", "medium"])
    arguments = parser.parse_args()
    arguments.root = arguments.root.resolve()
    logging.basicConfig(level=logging.WARNING)
    register_schema()
    with initialize_config_dir(str(conf_dir())):
        for stage in arguments.stages:
            for augment in arguments.augments:
                rows = [row(stage, augment, views, arguments) for views in VIEWS]
                print(format_table(rows), flush=True)
                append_rows("Views of an image", rows)


def row(stage: str, augment: str, views: str, arguments: argparse.Namespace) -> dict[str, object]:
    runs = [measure(stage, augment, views, seed, arguments) for seed in range(arguments.seeds)]
    scores = [score for score, _ in runs]
    return {
        "date": date.today().isoformat(),
        "data": f"{arguments.root.name} at {arguments.image_size} px",
        "stage": stage,
        "augment": augment,
        "views": views,
        "epochs": arguments.epochs,
        "best val accuracy": f"{statistics.mean(scores):.4f}",
        "spread (min to max)": f"{min(scores):.4f} to {max(scores):.4f}",
        "n": len(scores),
        "median seconds": f"{statistics.median(seconds for _, seconds in runs):.1f}",
        "machine": machine(),
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
