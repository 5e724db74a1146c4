"""The files of a cross-validation, and the lines that tell its result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ftexp.evaluation.classes import class_table
from ftexp.files.json_files import write_json
from ftexp.metric_names import METRICS
from ftexp.probe.cross_validation import FoldScores, group_intervals, pooled
from ftexp.probe.features import Features
from ftexp.report.plots import plot_confusion_matrix
from ftexp.report.tables import write_rows

HEAD = "a ridge head on the features of the frozen network, not the stage"
HEAD_ALONE = " The head is scored, whatever the stage: training more of the network may gain more."


def write_cross_validation(
    folder: Path,
    features: Features,
    folds: Sequence[FoldScores],
    names: Sequence[str],
    seed: int,
    trained: str | None = None,
) -> list[str]:
    """Write metrics with intervals, the scores of folds and classes, and the confusion matrix of all folds together.

    Args:
        folder: where the files are written.
        features: the samples.
        folds: the scores of all folds of all repeats.
        names: the metrics, the first of which leads the result.
        seed: of the intervals.
        trained: the name of what was trained on every fold; None: a head on the frozen network.

    Returns:
        The lines that tell the result.
    """
    scores, repeats = pooled(folds), max(one.repeat for one in folds) + 1
    groups = np.concatenate([features.groups.numpy()[one.rows] for one in folds])
    intervals = group_intervals(scores, groups, names, seed)
    found = {name: {"value": scores.metric(name), "low": low, "high": high} for name, (low, high) in intervals.items()}
    facts = {
        "scored": f"{trained}, a run for every fold" if trained else HEAD,
        "images": len(features.labels),
        "independent_images": features.num_groups,
        "folds": len(folds) // repeats,
        "repeats": repeats,
        "metrics": found,
    }
    write_json(folder / "cross_validation.json", facts)
    of_folds = [
        {"repeat": one.repeat + 1, "fold": one.fold + 1, "images": len(one.rows), **one.scores.metrics(names)}
        for one in folds
    ]
    write_rows(folder / "folds.csv", of_folds)
    write_rows(folder / "classes.csv", class_table(scores.confusion, features.classes))
    rows = zip(features.classes, scores.confusion.tolist(), strict=True)
    write_rows(
        folder / "confusion.csv",
        [{"true class": name, **dict(zip(features.classes, row, strict=True))} for name, row in rows],
    )
    title = "cross-validation" if repeats == 1 else f"cross-validation, {repeats} repeats"
    plot_confusion_matrix(scores.confusion, features.classes, folder / "confusion_matrix.png", title)
    told = ", ".join(
        f"{METRICS[name].label} {one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
        for name, one in found.items()
    )
    what = f"{trained}, trained for each" if trained else "a head on the frozen network"
    hint = "" if trained else HEAD_ALONE
    return [
        f"folds   {facts['folds']} folds x {repeats}, {what}: {told}",
        f"folds   Brackets are 95 % intervals over groups of images.{hint} {folder / 'cross_validation.json'}",
    ]
