"""The services of docker/compose.yaml without containers: each a process of this machine, all on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlflow
import optuna
import pytest
import yaml
from optuna.trial import TrialState
from postgres import free_port, postgres_server
from sqlalchemy import make_url

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).resolve().parents[2]
SMALL = ["runtime.device=cpu", "data.image_size=32", "stage=head", "stage.epochs=2"]
SECONDS = 240


def environment(**more: str) -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", **quiet, **more}


@contextmanager
def service(command: Sequence[str], url: str, folder: Path, **variables: str) -> Iterator[None]:
    """Start one, wait until it answers, and stop it with all that it started."""
    with (folder / "service.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(**variables), stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except (OSError, urllib.error.URLError):
                assert process.poll() is None, (folder / "service.log").read_text()
                assert time.monotonic() < deadline, f"{url} does not answer"
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def ftexp(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftexp", *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def all_end_well(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def the_study(url: str) -> optuna.Study:
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url)


def test_the_services_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, port, dashboard_port = str(Path(sys.executable).with_name("mlflow")), free_port(), free_port()
    compose = yaml.safe_load((PROJECT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    flags = [part for part in compose["mlflow"]["entrypoint"][2:] if not part.startswith(("--host", "--port"))]
    flags = [flag.replace("/artifacts", str(tmp_path / "artifacts")) for flag in flags]
    server = f"http://127.0.0.1:{port}"
    with postgres_server("mlflow", "optuna") as url:
        password = str(make_url(url).password)
        monkeypatch.setenv("PGPASSWORD", password)  # as in compose.yaml, in no URL
        postgres = url.replace(f":{password}@", "@")
        hosts = compose["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
        variables = {"MLFLOW_BACKEND_STORE_URI": f"{postgres}/mlflow", "MLFLOW_SERVER_ALLOWED_HOSTS": hosts}
        command = [program, "server", "--host=127.0.0.1", f"--port={port}", *flags]
        with service(command, f"{server}/health", tmp_path, **variables):
            assert answer(server, "mlflow:5000") == 200, "the name by which the trainer calls it"
            assert answer(server, "elsewhere.example") == 403
            all_end_well([ftexp(tmp_path, *SMALL, MLFLOW_TRACKING_URI=server)])
            storage = f"{postgres}/optuna"
            search = ["--multirun", *SMALL, "hydra.sweeper.n_trials=4", f"hydra.sweeper.storage={storage}"]
            all_end_well([ftexp(tmp_path, *search, MLFLOW_TRACKING_URI=server) for _ in range(2)])
            runs_are_all_there(server)
            assert [trial.state for trial in the_study(storage).trials].count(TrialState.COMPLETE) >= 1
            assert len(the_study(storage).trials) == 4
            dashboard = [str(Path(sys.executable).with_name("optuna-dashboard")), storage]
            address = f"http://127.0.0.1:{dashboard_port}"
            with (
                service([*dashboard, "--host=127.0.0.1", f"--port={dashboard_port}"], address, tmp_path),
                urllib.request.urlopen(f"{address}/api/studies", timeout=10) as response,
            ):
                assert len(json.load(response)["study_summaries"]) == 1


def answer(server: str, host: str) -> int:
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 1}',
        headers={"Host": host, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def runs_are_all_there(server: str) -> None:
    client = mlflow.MlflowClient(server)
    (experiment,) = [found for found in client.search_experiments() if found.name == "ftexp"]
    runs = client.search_runs([experiment.experiment_id])
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs} - {None}
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    alone = [run for run in runs if run not in trials and run.info.run_id not in parents]
    assert len(trials) == 4
    assert not any(name.startswith("test") for run in trials for name in run.data.metrics)
    (trained,) = [run for run in alone if "test_accuracy" in run.data.metrics]
    assert trained.info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(trained.info.run_id, "checkpoints")}
    assert names == {"checkpoints/best.pt", "checkpoints/calibration.json"}
    assert all(run.info.status == "FINISHED" for run in runs), [run.info.status for run in runs]


@pytest.mark.parametrize("machines", [1, 4])
def test_four_processes_share_one_study(tmp_path: Path, machines: int) -> None:
    folders = [tmp_path / f"machine{number % machines}" for number in range(4)]  # with no file in common
    for folder in folders:
        folder.mkdir(exist_ok=True)
    with postgres_server("optuna") as postgres:
        storage = f"{postgres}/optuna"
        search = ["--multirun", *SMALL, "tracking=none", "hydra.sweeper.n_trials=12"]
        outputs = all_end_well([ftexp(folder, *search, f"hydra.sweeper.storage={storage}") for folder in folders])
        trials = the_study(storage).trials
    assert len(trials) == 12
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    points = {tuple(sorted(trial.params.items())) for trial in trials}
    assert len(points) == 12, "no point is tried twice"
    assert not any("Warning" in output for output in outputs)
    # Each machine has a summary of its own, and whoever ended last has seen all trials.
    totals = [json.loads(path.read_text())["trials"] for path in tmp_path.glob("*/multirun/*/sweep.json")]
    assert len(totals) == machines
    assert max(sum(states[state] for state in states if state != "RUNNING") for states in totals) == 12
