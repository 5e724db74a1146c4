"""What a run is, how well it does and how to use it, in a few lines of Markdown for the page of the tracking store."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftexp.config import TrackingConfig
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json
from ftexp.files.run_files import IDENTITY, RESULT
from ftexp.metric_names import METRICS
from ftexp.tracking.logged_model import NAME


def describe_run(folder: Path, run_id: str | None) -> str:
    """Of the run in a folder that has begun; with its scores and how to predict once it has finished.

    Args:
        run_id: its id in the store that the description is for.
    """
    identity, result_file = read_json(folder / IDENTITY), folder / RESULT
    with reading(folder / IDENTITY):
        lines = [_what(identity, count_splits(folder))]
        wants_model = TrackingConfig(**identity["config"]["tracking"]).wants_model
    result = read_json(result_file) if result_file.exists() else {}
    if result.get("status") == "finished":
        with reading(result_file):
            model = f"runs:/{run_id}/{NAME}" if run_id and wants_model and result["test"] else None
            lines += [scores_in_words(result), _use(folder, model)]
    return "\n\n".join(lines)


def count_splits(folder: Path) -> dict[str, int]:
    """Images in each split, as ``splits.csv`` has them."""
    file = folder / "splits.csv"
    with reading(file), file.open(newline="", encoding="utf-8") as rows:
        return dict(Counter(row["split"] for row in csv.DictReader(rows)))


def scores_in_words(result: Mapping[str, Any]) -> str:
    """The scores of a finished run, with their intervals, beside naming the commonest class.

    Args:
        result: the content of ``result.json``.
    """
    best, test, baseline, metric = result["best"], result["test"], result["baseline"], result["metric"]
    sentences = []
    if test:
        images = f", {test['num_samples']:,} images"
        sentences.append(f"Test accuracy **{test['accuracy']:.4f}**{interval(test, 'accuracy', images)}.")
    sentences.append(
        f"Validation {METRICS[metric].label} **{best[f'val_{metric}']:.4f}**{interval(best, f'val_{metric}')} at epoch "
        f"{best['epoch']}."
    )
    sentences.append(
        f"Always naming {quoted(baseline['class'])} scores {baseline['split']} accuracy {baseline['accuracy']:.4f}."
    )
    return " ".join(sentences)


def interval(scores: Mapping[str, Any], name: str, more: str = "") -> str:
    """The 95 % interval of a score, in brackets; nothing where it was not computed, or is not finite."""
    low, high = scores.get(f"{name}_ci95") or (None, None)
    return "" if low is None or high is None else f" (95 % interval {low:.4f} to {high:.4f}{more})"


def quoted(text: object) -> str:
    """Text that Markdown shows as it is."""
    return f"`{str(text).replace('`', chr(39))}`"


def _what(identity: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    config = identity["config"]
    phases = "+".join(phase["name"] for phase in config["stage"]["phases"])
    images = ", ".join(f"{split} {counts.get(split, 0):,}" for split in ("train", "val", "test"))
    return (
        f"{quoted(config['model']['name'])} fine-tuned on {quoted(config['data']['source'])} "
        f"({len(identity['classes'])} classes; {images} images), stage {quoted(phases)}."
    )


def _use(folder: Path, model: str | None) -> str:
    lines = ["import ftexp", f"ftexp.load({str(folder)!r}).predict(['cat.jpg'])"]
    if model is not None:
        lines += ["", "import mlflow, pandas", f"model = mlflow.pyfunc.load_model({model!r})"]
        lines += ["model.predict(pandas.DataFrame({'image': ['cat.jpg']}))"]
    return "Predict:\n\n" + "\n".join(f"    {line}".rstrip() for line in lines)
