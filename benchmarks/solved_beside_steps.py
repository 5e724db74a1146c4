"""How long does a head take after the pass over the images: solved, and trained by steps?

    python -m benchmarks.solved_beside_steps hymenoptera data=imagefolder data.root=FOLDER [--rounds 3]

ftexp's own ``stage=head`` with ``head.solver=solved`` and ``sgd``, round after round in one process, from cached
activations: the seconds after the pass, and those of the whole runs. Adds a row to results.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import ftexp
from benchmarks.results import append_rows, machine, versions
from ftexp.run import run


def after_the_pass(folder: Path) -> float:
    """Seconds of solving, with the scores on validation for every strength, or of all epochs, validation included."""
    solution = folder / "solution.json"
    if solution.exists():
        return float(json.loads(solution.read_text())["solve_seconds"])
    with (folder / "metrics.csv").open(newline="") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))


def beside(name: str, overrides: Sequence[str], rounds: int) -> dict[str, object]:
    seconds: dict[str, list[float]] = {"solved": [], "sgd": []}
    whole: dict[str, list[float]] = {"solved": [], "sgd": []}
    with TemporaryDirectory() as temporary:
        for number, solver in product(range(rounds + 1), seconds):  # the first round fills the cache
            folder = Path(temporary) / f"{solver}{number}"
            cache = f"runtime.cache_folder={temporary}/cache"
            settings = (
                "stage=head",
                "head.depth=last",
                f"head.solver={solver}",
                "tracking=none",
                "audit.on_leak=off",
                cache,
            )
            result = run(ftexp.compose(*settings, "runtime.device=cpu", *overrides), folder, score_test=False)
            if number:
                seconds[solver].append(after_the_pass(folder))
                whole[solver].append(result.seconds)
    ratios = [one / other for one, other in zip(seconds["solved"], seconds["sgd"], strict=True)]
    return {
        "date": date.today().isoformat(),
        "set": name,
        "seconds, solved": _range(seconds["solved"], 2),
        "seconds, sgd": _range(seconds["sgd"], 2),
        "ratio": _range(ratios, 3),
        "whole run, solved": _range(whole["solved"], 1),
        "whole run, sgd": _range(whole["sgd"], 1),
        "n": rounds,
        "machine": machine(),
        "versions": versions(),
    }


def _range(values: Sequence[float], digits: int) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    append_rows("The solved head: seconds beside steps", [beside(given.name, given.overrides, given.rounds)])


if __name__ == "__main__":
    main()
