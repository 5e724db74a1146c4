"""An MLflow server that is stopped and started again while a run goes on: nothing is lost, nothing is there twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import mlflow
import pytest

pytestmark = pytest.mark.slow

SETTINGS = ["stage=full", "stage.epochs=4", "data.image_size=32", "audit.on_leak=off", "hydra.run.dir=run"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(folder: Path, port: int) -> Iterator[None]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("a") as log:
        command = [sys.executable, "-m", "mlflow", "server", *place, *stores]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: answers(port))
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def wait_until(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


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
    assert output.count("Tracking stops, training continues") == 1
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
