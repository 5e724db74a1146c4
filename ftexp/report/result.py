"""``result.json``: the result of a run in one small file, for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftexp.errors import PrunedError, RankError
from ftexp.evaluation.best import Best
from ftexp.evaluation.intervals import accuracy_interval, bootstrap_intervals
from ftexp.evaluation.scores import Scores
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import IDENTITY, RESULT
from ftexp.tracking.tracker import Status

log = logging.getLogger(__name__)


def result_content(
    metric: str,
    best: Best,
    test: Scores | None,
    *,
    test_uses: int,
    baseline: Mapping[str, object],
    phases: Sequence[Mapping[str, object]],
    head_depth: str,
    labels: Mapping[str, object] | None,
    temperature: float | None,
    images_per_second: float,
    peak_memory_mib: float,
    seconds: float,
    mlflow_run_id: str | None,
) -> dict[str, object]:
    """The content of ``result.json`` for a finished run.

    Args:
        metric: the metric that selects the best epoch, ``train.metric``.
        best: the best epoch.
        test: the scores of the test split; None if it was not scored.
        test_uses: how often the test split has been used so far, including this run.
        baseline: the scores of always predicting the most frequent class.
        phases: an entry per phase, including phases that were skipped.
        head_depth: what the last layer gets, ``last`` or ``all``.
        labels: how many labels look wrong, of how many images; None if they were not judged.
        temperature: by which predictions divide the logits; None if it was not fitted.
        images_per_second: images per second in training, the mean over the epochs.
        peak_memory_mib: peak memory in MiB.
        seconds: duration of the run.
        mlflow_run_id: the id of the MLflow run; None if the run was not tracked.
    """
    return {
        "status": "finished",
        "metric": metric,
        "best": best_entry(best),
        "test": {**score_entry(test, list(best.record.val)), "uses": test_uses} if test else None,
        "baseline": baseline,
        "phases": phases,
        "head_depth": head_depth,
        "labels": labels,
        "temperature": temperature,
        "diagnosis": next(entry["diagnosis"] for entry in phases if entry["name"] == best.record.phase),
        "images_per_second": images_per_second,
        "peak_memory_mib": peak_memory_mib,
        "seconds": seconds,
        "mlflow_run_id": mlflow_run_id,
        "checkpoint": "checkpoints/best.pt",
    }


def best_entry(best: Best) -> dict[str, object]:
    """The best epoch with its validation metrics and their 95 % intervals by bootstrap."""
    scores, names = best.scores, list(best.record.val)
    intervals = bootstrap_intervals(scores, names)
    return {
        "epoch": best.record.epoch,
        "wise_ft_alpha": best.alpha,
        "val_loss": scores.loss,
        **{f"val_{name}": value for name, value in scores.metrics(names).items()},
        **{f"val_{name}_ci95": list(interval) for name, interval in intervals.items()},
    }


def score_entry(scores: Scores, names: list[str]) -> dict[str, object]:
    """Metrics of the test split with 95 % intervals: of accuracy by Wilson's formula, of the others by bootstrap."""
    intervals = bootstrap_intervals(scores, names)
    intervals["accuracy"] = accuracy_interval(scores.num_correct, scores.num_samples)
    return {
        "loss": scores.loss,
        **scores.metrics(names),
        **{f"{name}_ci95": list(interval) for name, interval in intervals.items()},
        "num_samples": scores.num_samples,
    }


def write_failure(folder: Path, error: BaseException) -> Status:
    """Write a ``result.json`` that says why there is no result.

    Returns:
        The status for the tracking store.
    """
    status: tuple[str, Status] = ("failed", "FAILED")
    if isinstance(error, KeyboardInterrupt | RankError):
        status = ("interrupted", "KILLED")
    elif isinstance(error, PrunedError):
        status = ("pruned", "FINISHED")
    try:
        write_json(folder / RESULT, {"status": status[0], "error": f"{type(error).__name__}: {error}"})
    except OSError as unwritten:  # probably the same full disk that ended the run
        log.warning("result.json cannot be written: %s.", unwritten)
    return status[1]


def keep_time_plan(folder: Path, entries: Sequence[Mapping[str, object]]) -> None:
    """Write the plan under a time limit into the ``run.json`` of a folder that has one."""
    file = folder / IDENTITY
    if file.exists():
        write_json(file, {**read_json(file), "time_plan": list(entries)})
