"""Is ``stage=staged`` as good as the best of ``head``, ``partial`` and ``full``, which nobody knows beforehand?

    python -m benchmarks.staged --root FOLDER [--seeds 5] [--epochs 4] [--image-size 96]

Trains each stage on an image folder with ``train/`` and ``val/`` (the bundled EfficientNet-Lite0 weights, no
augmentation) from the same seeds. ``staged`` has three phases of ``--epochs`` epochs, the others as many epochs as all
three together. Prints a table of the best validation accuracy and appends it to benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

from hydra import compose, initialize_config_dir

from benchmarks.results import append_rows, machine, versions
from ftexp.config import parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.report.tables import format_table
from ftexp.run import run

STAGES = ("head", "partial", "full", "staged")


def measure(stage: str, seed: int, arguments: argparse.Namespace) -> tuple[float, float, list[str]]:
    """The best validation accuracy, the seconds and the gate's verdicts of one run."""
    epochs = arguments.epochs * (1 if stage == "staged" else 3)
    overrides = [
        f"stage={stage}",
        f"stage.epochs={epochs}",
        "data=imagefolder",
        f"data.root={arguments.root}",
        f"data.image_size={arguments.image_size}",
        f"runtime.seed={seed}",
        "runtime.device=cpu",
        "tracking=none",
        "audit.on_leak=off",
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = parse(compose("config", overrides=overrides))
        result = run(config, Path(folder), score_test=False, resumable=False)
    verdicts = list(result.verdicts.items())[1:]
    return result.value, result.seconds, [f"{name} {verdict}" for name, verdict in verdicts]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=96)
    arguments = parser.parse_args()
    arguments.root = arguments.root.resolve()
    logging.basicConfig(level=logging.WARNING)
    register_schema()
    rows: list[dict[str, object]] = []
    with initialize_config_dir(str(conf_dir())):
        for stage in STAGES:
            runs = [measure(stage, seed, arguments) for seed in range(arguments.seeds)]
            scores = [score for score, _, _ in runs]
            verdicts = Counter(verdict for _, _, each in runs for verdict in each)
            rows.append(
                {
                    "date": date.today().isoformat(),
                    "data": f"{arguments.root.name} at {arguments.image_size} px",
                    "stage": stage,
                    "epochs": 3 * arguments.epochs,
                    "val accuracy": f"{statistics.mean(scores):.4f}",
                    "spread (min to max)": f"{min(scores):.4f} to {max(scores):.4f}",
                    "n": len(scores),
                    "median seconds": f"{statistics.median(seconds for _, seconds, _ in runs):.0f}",
                    "gate": ", ".join(f"{verdict} {count} x" for verdict, count in verdicts.items()) or "-",
                    "machine": machine(),
                    "versions": versions(),
                }
            )
            print(format_table(rows[-1:]), flush=True)
    append_rows("Staged against its parts", rows)


if __name__ == "__main__":
    main()
