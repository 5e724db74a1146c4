"""A checkpoint as a model of MLflow's: in a real store, without a network of its own."""

from __future__ import annotations

import base64
import json
import logging
import os
from pathlib import Path

import mlflow
import pytest

from ftexp.tracking.mlflow_tracker import MlflowTracker
from ftexp.tracking.tracker import ModelToLog


def test_the_model_has_its_scores_its_data_and_its_name(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_bytes(b"weights")
    checkpoint.with_name("calibration.json").write_text("its temperature")
    process = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    tracker = MlflowTracker.start(store, "ours", "run")
    tracker.log_params({"optimizer.head_lr": 0.1})
    tracker.log_dataset("imagefolder", "c5a9", {"train": 3})
    for epoch, accuracy in ((1, 0.75), (2, 0.5)):
        tracker.log_metrics({"val_accuracy": accuracy, "train_loss": 1.0}, epoch)
    for name in ("pets", "pets"):
        metrics = (("val_accuracy", 1), ("test_accuracy", 2))  # the latter was never sent
        tracker.log_model(ModelToLog(checkpoint, 1, metrics, name))
    tracker.close("FINISHED")
    assert caplog.records == [], caplog.text
    assert (mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == process

    client = tracker._client
    run = client.get_run(tracker.run_id)
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    assert [value.step for value in client.get_metric_history(tracker.run_id, "val_accuracy")] == [1, 2]
    outputs = [(output.model_id, output.step) for output in run.outputs.model_outputs]
    models = client.search_logged_models([run.info.experiment_id])
    assert {step for _, step in outputs} == {1}
    assert {model_id for model_id, _ in outputs} == {model.model_id for model in models}
    newest = models[0]
    assert (newest.status.value, newest.source_run_id, newest.model_type) == (
        "READY",
        tracker.run_id,
        "image classifier",
    )
    assert newest.params == {"optimizer.head_lr": "0.1"}
    (metric,) = newest.metrics
    assert (metric.key, metric.value, metric.step) == ("val_accuracy", 0.75, 1)
    assert (metric.dataset_name, metric.dataset_digest) == ("imagefolder", "c5a9")
    assert json.loads(newest.tags["mlflow.modelVersions"]) == [{"name": "pets", "version": 2}]
    best = client.get_model_version_by_alias("pets", "best")
    assert (int(best.version), best.source, best.run_id) == (2, f"models:/{newest.model_id}", tracker.run_id)
    folder = Path(newest.artifact_location.removeprefix("file://"))
    assert (folder / "best.pt").read_bytes() == b"weights"
    assert (folder / "calibration.json").read_text() == "its temperature"
    ((image,),) = json.loads((folder / "input_example.json").read_text())["data"]
    assert base64.b64decode(image).startswith(b"\x89PNG")  # one of ours, none of the data


def test_what_cannot_be_logged_is_one_warning(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = MlflowTracker.start(store, "ours", "run")
    tracker.log_model(ModelToLog(tmp_path / "missing.pt", 1, ()))
    tracker.set_tags({"later": "yes"})
    tracker.close("FINISHED")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "The network was not recorded as an MLflow model: FileNotFoundError" in record.getMessage()
    assert tracker._client.get_run(tracker.run_id).data.tags["later"] == "yes"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("genai_development", "genai_development"),
        ("genai_development_inferred", "custom_model_development"),
        (None, "custom_model_development"),
    ],
)
def test_a_kind_that_somebody_chose_for_the_experiment_stays(store: str, before: str | None, after: str) -> None:
    first = MlflowTracker.start(store, "ours", "run")
    experiment = first._client.get_run(first.run_id).info.experiment_id
    if before is None:
        first._client.delete_experiment_tag(experiment, "mlflow.experimentKind")
    else:
        first._client.set_experiment_tag(experiment, "mlflow.experimentKind", before)
    MlflowTracker.start(store, "ours", "run").close("FINISHED")
    assert first._client.get_experiment(experiment).tags["mlflow.experimentKind"] == after
    first.close("FINISHED")
