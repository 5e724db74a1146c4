import logging
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from mlflow_servers import free_port, server

from ftexp.config import TrackingConfig
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.mlflow_store import RUN_LIMITS, quiet
from ftexp.tracking.mlflow_tracker import MlflowTracker
from ftexp.tracking.pages import run_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a folder with spaces")


@pytest.fixture(scope="module")
def uri(folder, empty_store):
    shutil.copy(empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def tracker(uri):
    opened = make_tracker(TrackingConfig(backend="mlflow", uri=uri, experiment="digits/96 px"), "partial")
    assert isinstance(opened, MlflowTracker)
    return opened


def read(uri, tracker):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    return client, client.get_run(tracker.run_id)


def test_a_whole_run_can_be_read_back(uri, folder, tracker, tmp_path, caplog, capfd):
    plot = tmp_path / "curves.png"
    plot.write_bytes(b"png")
    tracker.log_params(
        {"optimizer.head_lr": 1e-3, "data.image_size": None, "runtime.compile": True, "phases[0].n": [1, 2]}
    )
    tracker.log_metrics({"val_accuracy": 0.5, "val_loss": math.nan}, step=1)
    tracker.log_metrics({"val_accuracy": 0.75, "val_loss": 0.25}, step=2)
    tracker.log_artifact(plot, "plots")
    tracker.set_tags({"device": "cpu"})
    tracker.close("FINISHED")

    client, run = read(uri, tracker)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "partial"
    assert run.data.params == {
        "optimizer.head_lr": "0.001",
        "data.image_size": "null",
        "runtime.compile": "true",
        "phases_0_.n": "[1, 2]",
    }
    history = client.get_metric_history(tracker.run_id, "val_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.75)]
    assert math.isnan(client.get_metric_history(tracker.run_id, "val_loss")[0].value)
    assert run.data.tags["device"] == "cpu"
    assert [file.path for file in client.list_artifacts(tracker.run_id, "plots")] == ["plots/curves.png"]
    # Absolute and beside the database, so that the UI shows the files from whatever folder it is started in.
    kept = folder / "mlruns" / "digits_96_px" / tracker.run_id / "artifacts" / "plots" / "curves.png"
    assert kept.read_bytes() == b"png"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_the_status_is_recorded(uri, tracker, status):
    tracker.close(status)
    assert read(uri, tracker)[1].info.status == status


def test_many_and_long_params_go_in_batches_and_are_cut_with_a_mark(uri, tracker):
    tracker.log_params({f"key{i}": i for i in range(250)} | {"exact": "x" * 6000, "long": "y" * 6001})
    tracker.flush()
    params = read(uri, tracker)[1].data.params
    assert len(params) == 252
    assert params["exact"] == "x" * 6000
    assert params["long"] == "y" * (6000 - len(" [cut]")) + " [cut]"


def test_credentials_never_reach_the_store(uri, tracker):
    tracker.log_params({"tracking.uri": "http://me:hunter2@host:5000"})
    tracker.set_tags({"server": "postgresql://me:hunter2@db/runs"})
    tracker.flush()
    run = read(uri, tracker)[1]
    assert run.data.params["tracking.uri"] == "http://***@host:5000"
    assert run.data.tags["server"] == "postgresql://***@db/runs"


def test_trouble_after_the_start_is_one_warning_and_then_silence(uri, tracker, tmp_path, caplog, capfd):
    tracker.log_metrics({"loss": 1.0}, step=1)
    tracker.log_artifact(tmp_path / "missing.png")
    tracker.flush()
    (record,) = caplog.records
    assert "Tracking stops: file missing.png not recorded" in record.message
    tracker.log_metrics({"loss": 0.5}, step=2)
    tracker.log_artifact(tmp_path / "missing.png")
    tracker.close("FINISHED")
    assert len(caplog.records) == 1
    assert capfd.readouterr() == ("", "")
    client, run = read(uri, tracker)
    assert [metric.step for metric in client.get_metric_history(tracker.run_id, "loss")] == [1]
    assert run.info.status == "FINISHED"  # no dead run is listed as running
    assert "missing.png" in run.data.tags["ftexp.incomplete"]


def test_limits_hold_during_a_call_only_and_the_users_own_win(monkeypatch):
    timeout, retries = "MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.setenv(timeout, "77")
    monkeypatch.delenv(retries, raising=False)
    noisy = logging.getLogger("urllib3")
    monkeypatch.setattr(noisy, "level", logging.INFO)
    with suppress(RuntimeError), quiet(RUN_LIMITS):
        assert (os.environ[timeout], os.environ[retries]) == ("77", "1")
        assert noisy.level == logging.CRITICAL
        raise RuntimeError
    assert os.environ[timeout] == "77"
    assert retries not in os.environ
    assert noisy.level == logging.INFO


START = """
import sys
from ftexp.config import TrackingConfig
from ftexp.tracking.factory import make_tracker
tracker = make_tracker(TrackingConfig(backend="mlflow", uri=sys.argv[1]), "run")
tracker.log_metrics({"loss": 1.0}, step=1)
tracker.close("FINISHED")
print(tracker.run_id)
"""
TELEMETRY = """
from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled
assert is_telemetry_disabled()
assert get_telemetry_client() is None
"""


@pytest.mark.slow
def test_telemetry_is_off(tmp_path):
    """In a process of its own: importing mlflow before the tracker would have begun it."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    subprocess.run([sys.executable, "-c", START + TELEMETRY, uri], check=True, timeout=120, env=environment)


@pytest.mark.slow
def test_four_processes_may_start_at_once_on_a_fresh_database(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", START, uri]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [errors for _, errors in outputs] == [""] * 4
    run_ids = {out.strip() for out, _ in outputs}
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("ftexp")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == run_ids
    assert len(run_ids) == 4


@pytest.mark.slow
def test_a_server_that_goes_away_in_mid_run(tmp_path, caplog):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    caplog.set_level(logging.INFO, "ftexp")
    with server(tmp_path, port):
        tracker = make_tracker(TrackingConfig(backend="mlflow", uri=uri), "run")
        assert isinstance(tracker, MlflowTracker)
        file = tmp_path / "result.json"
        file.write_text("{}")
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_artifact(file)
        tracker.flush()
        client, run = read(uri, tracker)
        assert run.data.metrics == {"loss": 1.0}
        assert [entry.path for entry in client.list_artifacts(tracker.run_id)] == ["result.json"]
        assert caplog.messages == [f"mlflow  {run_page(uri, run.info.experiment_id, tracker.run_id)}"]
    caplog.clear()
    started = time.perf_counter()
    tracker.log_metrics({"loss": 0.5}, step=2)
    tracker.close("FINISHED")
    assert time.perf_counter() - started < 30
    (record,) = caplog.records
    assert "Tracking stops: metrics not recorded" in record.message
