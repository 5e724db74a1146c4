"""An MLflow server that is stopped and started again while a run goes on: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow_servers import free_port, server, wait_until

pytestmark = pytest.mark.slow

SETTINGS = ["stage=full", "stage.epochs=4", "data.image_size=32", "audit.on_leak=off", "hydra.run.dir=run"]


def test_after_a_sync_every_value_is_there_once(tmp_path: Path) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "ftexp", *SETTINGS, f"tracking.uri={uri}"]
    with server(tmp_path, port):
        run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_until(lambda: (tmp_path / "run" / "metrics.csv").exists())
        except BaseException:
            run.kill()
            raise
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert output.count("Tracking stops") == 1
    with server(tmp_path, port):
        sync = [sys.executable, "-m", "ftexp.sync", "run"]
        ended = subprocess.run(sync, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == 0, ended.stderr
        again = subprocess.run(sync, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert "nothing was missing" in again.stdout
        client = mlflow.MlflowClient(uri)
        (found,) = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (found.info.run_id, found.info.status) == (result["mlflow_run_id"], "FINISHED")
        for key in ("train_loss", "val_loss", "val_accuracy"):
            assert [value.step for value in client.get_metric_history(found.info.run_id, key)] == [1, 2, 3, 4]
        assert found.data.metrics["test_accuracy"] == result["test"]["accuracy"]
