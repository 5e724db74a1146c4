"""Models and runs are loaded from a real MLflow store by their names there."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from conftest import Compose
from finished_runs import write_finished_run

import ftexp
from ftexp.errors import CheckpointError, ConfigError
from ftexp.inference.mlflow_models import _of_model
from ftexp.tracking.mlflow_tracker import MlflowTracker
from ftexp.tracking.tracker import ModelToLog

PICTURE = np.random.default_rng(0).integers(0, 256, (70, 80, 3)).astype(np.uint8)


def test_a_registered_model_and_a_run_are_their_checkpoint(
    store: str, tmp_path: Path, configure: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_finished_run(tmp_path / "run", configure)
    best = run / "checkpoints" / "best.pt"
    tracker = MlflowTracker.start(store, "ours", "run")
    tracker.log_artifact(best, "checkpoints")
    tracker.log_model(ModelToLog(best, 1, (), "pets"))
    tracker.close("FINISHED")
    process = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    expected = ftexp.load(run).predict(PICTURE)[0].probabilities
    model_id = tracker._client.get_run(tracker.run_id).outputs.model_outputs[0].model_id
    names = ["models:/pets@best", "models:/pets/1", f"models:/{model_id}", f"runs:/{tracker.run_id}"]
    for name in names:
        classifier = ftexp.load(name)
        assert classifier.run == name
        assert np.array_equal(classifier.predict(PICTURE)[0].probabilities, expected)
    for name, message in (
        ("models:/dogs@best", r"there is no registered model dogs\. There are: pets"),
        ("models:/pets", r"names no version\. Give models:/pets@best, or models:/pets/1"),
        ("models:/pets@worst", "models:/pets@worst cannot be loaded from sqlite.*worst"),
        ("models:/pets/7", "models:/pets/7 cannot be loaded from .*7"),
        ("runs:/0123", "runs:/0123 cannot be loaded from .*0123"),
    ):
        with pytest.raises(CheckpointError, match=message):
            ftexp.load(name)

    tracker._client.set_terminated(tracker.run_id, "FAILED")
    with pytest.raises(CheckpointError, match=r"ended as failed\. The best epoch .*: runs:/.*/checkpoints/best\.pt"):
        ftexp.load(names[-1])
    assert ftexp.load(f"{names[-1]}/checkpoints/best.pt").classes == ("dog", "cat")
    empty = tracker._client.create_run("0").info.run_id
    tracker._client.set_terminated(empty, "FINISHED")
    with pytest.raises(CheckpointError, match=r"has no best\.pt: it was not recorded by ftexp"):
        ftexp.load(f"runs:/{empty}")
    monkeypatch.undo()
    assert (mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")) == process


def test_without_a_store_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("mlflow.is_tracking_uri_set", lambda: False)
    with pytest.raises(CheckpointError, match=r"There is no MLflow store .*mlflow\.db\. Set MLFLOW_TRACKING_URI"):
        ftexp.load("models:/pets@best")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("mlflow.is_tracking_uri_set", lambda: True)
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "file:///tmp/mlruns")
    with pytest.raises(ConfigError, match="MLflow 3 does not store runs in folders"):
        ftexp.load("models:/pets@best")


class Registry:
    """A store with more registered models than it lists at once."""

    def __init__(self, number: int) -> None:
        self._number = number

    def search_registered_models(self, max_results: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=f"m{number:04d}") for number in range(min(max_results, self._number))]

    def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
        return SimpleNamespace(version=f"{name} {alias}")

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        return f"/models/{version}"


def test_a_model_behind_the_first_hundred_is_found() -> None:
    assert _of_model(Registry(101), "models:/zebra@best") == ("/models/zebra best", "")
    with pytest.raises(CheckpointError, match=r"there is no registered model zebra\. There are: m0000"):
        _of_model(Registry(99), "models:/zebra@best")
