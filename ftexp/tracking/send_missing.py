"""Sends to the tracking store what a run's folder has and the store lacks, each value once."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftexp.config import TrackingConfig
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json
from ftexp.files.run_files import BEST, IDENTITY, LEAKS_PICTURE, REPORT, RESULT, RESULT_FILES, with_calibration
from ftexp.metric_names import METRICS
from ftexp.tracking.description import count_splits, describe_run
from ftexp.tracking.params import flatten_data
from ftexp.tracking.provenance import provenance
from ftexp.tracking.report_page import log_report
from ftexp.tracking.tracker import DESCRIPTION, ModelToLog, Status, Tracker, brief

log = logging.getLogger(__name__)

# Columns of metrics.csv that are not metrics.
WORDS = ("phase", "epoch", "best")
# The status in result.json -> MLflow's status.
STATUS: dict[str, Status] = {"finished": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True, slots=True)
class Sent:
    """How many metrics, parameters, files and models were missing in the store and have been sent."""

    metrics: int
    params: int
    files: int
    models: int = 0


def send_missing(tracker: Tracker, folder: Path) -> Sent:
    """Compare the folder of a run with what the tracking store has, and send the difference.

    Nothing else may write to the run meanwhile.

    Raises:
        Exception: any error of the store.
    """
    known = tracker.known()
    if known is None:
        return Sent(0, 0, 0)
    identity = read_json(folder / IDENTITY)
    decided = {decision["key"]: decision["value"] for decision in identity.get("decided") or []}
    settings = flatten_data(identity["config"]) | flatten_data(decided)  # as a run sends them: without auto
    params = {key: value for key, value in settings.items() if key not in known.params}
    num_metrics, steps = 0, _values(folder)
    with reading(folder / IDENTITY):
        data = identity["config"]["data"]["source"], identity["data_digest"]
        tracking = TrackingConfig(**identity["config"]["tracking"])
    model = None if known.has_model else _model(folder, tracking, steps)
    if params:
        tracker.log_params(params)
        about = {"folder": str(folder.absolute()), DESCRIPTION: describe_run(folder, tracker.run_id)}
        tracker.set_tags({**provenance(identity), **about})
    if params or model is not None:
        tracker.log_dataset(*data, count_splits(folder))
    for step, values in steps.items():
        missing = {key: value for key, value in values.items() if (key, step) not in known.metrics}
        if missing:
            tracker.log_metrics(missing, step)
            num_metrics += len(missing)
    files = [
        path for path in _files(folder, tracking.log_images) if path.relative_to(folder).as_posix() not in known.files
    ]
    for path in files:
        tracker.log_artifact(path, "checkpoints" if path.parent != folder else "")
    page = (folder / REPORT).exists() and REPORT not in known.files
    if page:
        log_report(tracker, folder, log_images=tracking.log_images)
    if model is not None:
        tracker.log_model(model)
    return Sent(num_metrics, len(params), len(files) + page, int(model is not None))


def send_missing_if_possible(tracker: Tracker, folder: Path) -> None:
    """Like ``send_missing`` for a run that is resumed; an error of the store is only a warning."""
    try:
        send_missing(tracker, folder)
    except Exception as error:
        log.warning("What was not sent before cannot be sent now: %s. Try python -m ftexp.sync.", brief(error))


def status_of(folder: Path) -> Status:
    """MLflow's status of the run in a folder; a run without a result was killed."""
    status = _result(folder).get("status", "interrupted")
    with reading(folder / RESULT):
        return STATUS[status]


def _values(folder: Path) -> dict[int, dict[str, float]]:
    """Epoch -> its metrics; the test metrics belong to the last epoch. Epoch 0, a solved start, is in no table."""
    file, steps = folder / "metrics.csv", {}
    if file.exists():
        with reading(file), file.open(newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                numbers = {key: float(text) for key, text in row.items() if key not in WORDS and text}
                steps[int(row["epoch"])] = numbers
    best = _result(folder).get("best") or {}
    if best.get("epoch") == 0:
        steps[0] = {key: value for key, value in best.items() if key.startswith("val_") and isinstance(value, float)}
    if steps and (test := _result(folder).get("test")):
        numbers = {name: value for name, value in test.items() if name == "loss" or name in METRICS}
        steps[max(steps)] |= {f"test_{name}": value for name, value in numbers.items() if value is not None}
    return steps


def _model(folder: Path, config: TrackingConfig, steps: Mapping[int, Mapping[str, float]]) -> ModelToLog | None:
    """The model that a run logs; None for a run that logs none: it did not finish, or did not score its test split."""
    result = _result(folder)
    if not (config.wants_model and result.get("status") == "finished" and result.get("test")):
        return None
    with reading(folder / RESULT):
        epoch = int(result["best"]["epoch"])
    of_best = [(name, epoch) for name in steps[epoch] if name.startswith("val_")]
    of_test = [(name, max(steps)) for name in steps[max(steps)] if name.startswith("test_")]
    return ModelToLog(folder / BEST, epoch, (*of_best, *of_test), config.register_as)


def _files(folder: Path, log_images: bool) -> list[Path]:
    """The files that the store gets: tables and plots, and the best weights when the run has finished."""
    kept_here = {"digests.csv"} if log_images else {"digests.csv", LEAKS_PICTURE}
    files = sorted(path for path in folder.iterdir() if path.suffix in (".csv", ".png") and path.name not in kept_here)
    if _result(folder).get("status") == "finished":
        files += [folder / name for name in RESULT_FILES if name.endswith(".json")]
        files += with_calibration(folder / BEST)
    return [path for path in files if path.exists()]


def _result(folder: Path) -> dict[str, Any]:
    file = folder / RESULT
    return read_json(file) if file.exists() else {}
