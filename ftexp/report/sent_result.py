"""What the tracking store gets of a finished run: its files, its scores on the test split, and the model."""

from __future__ import annotations

from pathlib import Path

from ftexp.evaluation.best import Best
from ftexp.evaluation.diagnosis import Diagnosis
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.files.run_files import BEST, RESULT_FILES, with_calibration
from ftexp.tracking.description import describe_run
from ftexp.tracking.tracker import DESCRIPTION, ModelToLog, Tracker


def send_result(
    tracker: Tracker, folder: Path, last: EpochRecord, test: Scores | None, diagnosis: Diagnosis | None
) -> None:
    """Copy the result files in the folder of a run to the store, and record its test scores and its description.

    Args:
        last: the last epoch; the test scores have its number and its metrics.
        test: the scores of the test split; None if it was not scored.
        diagnosis: of the last phase; None if there is none.
    """
    for name in filter(lambda name: (folder / name).exists(), RESULT_FILES):
        tracker.log_artifact(folder / name)
    for file in with_calibration(folder / BEST):
        tracker.log_artifact(file, "checkpoints")
    diagnosed = {"diagnosis": diagnosis.signal} if diagnosis else {}
    tracker.set_tags({**diagnosed, DESCRIPTION: describe_run(folder, tracker.run_id)})
    if test:
        scores = {f"test_{name}": value for name, value in test.metrics(last.val).items()}
        tracker.log_metrics({**scores, "test_loss": test.loss}, last.epoch)


def model_to_log(folder: Path, best: Best, last: EpochRecord, register_as: str | None) -> ModelToLog:
    """The best network of a run as a model for the store, with its scores of validation and test.

    Args:
        last: the last epoch, under whose number the test scores were recorded.
        register_as: its name in the registry; None: it gets none.
    """
    epoch, scores = best.record.epoch, ["loss", *best.record.val]
    metrics = [(f"val_{name}", epoch) for name in scores] + [(f"test_{name}", last.epoch) for name in scores]
    return ModelToLog(folder / BEST, epoch, tuple(metrics), register_as)
