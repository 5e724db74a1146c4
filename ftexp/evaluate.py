"""``python -m ftexp.evaluate RUN…``: how good a trained network is, on its own validation images or on others."""

from __future__ import annotations

import argparse
import re
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ftexp.cli.program import end_program, make_parser
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports
from ftexp.metric_names import METRICS

if TYPE_CHECKING:
    from ftexp.inference.run_evaluation import RunEvaluation

WHAT = """Score trained networks on labelled images: metrics with intervals, per class, calibration, what was confused.
Several runs are scored on the same images and compared in pairs. Exit code: 0; 1 when an argument or the data is wrong;
130 after Ctrl-C."""
EXAMPLE = "outputs/DATE/TIME --data data=imagefolder data.root=new_pictures"


def main(arguments: list[str] | None = None) -> int:
    """Read the command and evaluate; returns the exit code."""
    parser = make_parser("evaluate", WHAT, EXAMPLE)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, checkpoint, exported file, or latest")
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        help="of the run (val), or of the data that --data names (all of it); opening the run's test split is counted",
    )
    parser.add_argument(
        "--data",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="other data, as for a run: data=imagefolder data.root=FOLDER; without data=..., where the run's own "
        "images are by now: data.root=FOLDER",
    )
    names = ", ".join(METRICS)
    parser.add_argument(
        "--metric", metavar="NAME", choices=METRICS, default="accuracy", help=f"that runs are compared by: {names}"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (that of the run, where it is there)")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, help="images that are computed at once (that of the run)"
    )
    parser.add_argument("--trust", action="store_true", help="load a .pt2 file, which may execute code")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="a new folder for the files (RUN/evaluations/NAME, or, of several runs, evaluations/NAME)",
    )
    given = parser.parse_args(arguments)
    folder = given.output.expanduser() if given.output else None
    return end_program(lambda: _evaluate(given, folder), {"--output": folder.absolute()} if folder else None)


def _evaluate(given: argparse.Namespace, output: Path | None) -> int:
    with quick_imports():
        from ftexp.report.evaluation_files import claim, write_evaluation
        from ftexp.report.evaluation_text import evaluation_lines
    if output is not None:
        claim(output)  # before anything is computed
    what, evaluations = _evaluations(given)
    for one in evaluations:
        print(f"run     {one.name}  {one.classifier!r}")
        print(f"data    {what}: {one.evaluation.scores.num_samples} images")
        engine = " ".join(filter(None, (one.engine["device"], one.engine.get("precision"))))
        print(f"engine  {engine}, batches of {one.engine['batch_size']}")
        print("\n".join(evaluation_lines(one.evaluation, one.reproduced)), end="\n\n")
    folder = output or _new_folder(evaluations, what)
    for number, one in enumerate(evaluations, 1):
        own = folder if len(evaluations) == 1 else folder / f"{number}-{Path(one.name).name}"
        write_evaluation(one.evaluation, own, one.facts(what), what)
    if len(evaluations) > 1:
        _compare(evaluations, given.metric, folder)
    print(f"files   {folder}")
    return 0


def _evaluations(given: argparse.Namespace) -> tuple[str, list[RunEvaluation]]:
    """What the images are, and each run's evaluation on them."""
    from ftexp.inference.run_evaluation import evaluate_on_data, evaluate_on_split, other_data

    how = given.device, given.batch_size
    if any(setting.startswith("data=") for setting in given.data):
        config, samples = other_data(given.data, given.split)
        place = getattr(config, "root", None) or getattr(config, "file", None) or ""
        what = " ".join(filter(None, (config.source, str(place), given.split)))
        return what, [evaluate_on_data(name, samples, *how, trust=given.trust) for name in given.runs]
    split = given.split or "val"
    evaluations = [evaluate_on_split(name, split, given.data, *how, trust=given.trust) for name in given.runs]
    return f"{split} split of the run", evaluations


def _compare(evaluations: list[RunEvaluation], metric: str, folder: Path) -> None:
    from ftexp.evaluation.comparison import compare
    from ftexp.inference.run_evaluation import aligned
    from ftexp.report.evaluation_text import comparison_lines, comparison_rows, metric_rows
    from ftexp.report.tables import format_table, write_rows

    names, results = [one.name for one in evaluations], [one.evaluation for one in evaluations]
    if undefined := [one.name for one in evaluations if metric not in one.evaluation.metrics]:
        raise ConfigError(f"--metric {metric} is not defined for {undefined[0]} on these images.")
    comparisons = compare(aligned(results), metric)
    shown = ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", metric)
    print(format_table(metric_rows(names, results, shown)), end="\n\n")
    print("\n".join(comparison_lines(names, comparisons, metric)), end="\n\n")
    write_rows(folder / "runs.csv", metric_rows(names, results))
    write_rows(folder / "comparison.csv", comparison_rows(names, comparisons, metric))


def _new_folder(evaluations: list[RunEvaluation], what: str) -> Path:
    """A folder that is not there yet: in the run's own, or, of several runs, in the working folder."""
    run = evaluations[0].run if len(evaluations) == 1 else None
    parent = (run.folder if run is not None else Path()) / "evaluations"
    name = re.sub(r"[^\w.-]+", "-", what.removesuffix(" split of the run")).strip("-.")[-60:] or "data"
    tried = (parent / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(folder for folder in tried if not folder.exists())


if __name__ == "__main__":
    sys.exit(main())
