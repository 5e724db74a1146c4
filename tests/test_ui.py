"""``python -m ftexp.ui``: the addresses that it prints show the runs, and the server is MLflow's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_servers import answers, free_port, wait_until

from ftexp import ui
from ftexp.config import TrackingConfig
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.pages import experiment_page, run_page


class BecomesServerError(Exception):
    """In the place of the process that a test cannot become."""


@pytest.fixture
def uri(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in the working folder, with a run of one experiment after that of another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_tracker(TrackingConfig(backend="mlflow", uri=store, experiment="cats"), "first").close("FINISHED")
    return store


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that the process would have become."""
    commands: list[list[str]] = []

    def become(program: str, command: list[str]) -> None:
        commands.append(command)
        raise BecomesServerError

    monkeypatch.setattr(os, "execv", become)
    return commands


def test_experiments_with_runs_are_shown_and_the_server_gets_the_store(
    uri: str, server: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with pytest.raises(BecomesServerError):
        ui.show("sqlite:///mlflow.db", port)
    pages, kind = f"http://127.0.0.1:{port}/#/experiments", "?workflowType=machine_learning"
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]  # "Default" has no runs
    assert lines == [["cats", f"{pages}/2{kind}"], ["none", f"{pages}/1{kind}"]]
    (command,) = server
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert command[command.index("--port") + 1] == str(port)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1] == "sqlite:///mlflow.db"


def test_what_cannot_be_shown_is_one_message(
    uri: str, server: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    empty = shutil.copy(tmp_path / "mlflow.db", tmp_path / "empty.db")
    client = MlflowClient(tracking_uri=f"sqlite:///{empty}")
    for run in client.search_runs(["1", "2"]):
        client.delete_run(run.info.run_id)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        cases = {
            ("--uri", "sqlite:///nosuch.db"): "sqlite:///nosuch.db does not exist yet: no run was recorded there",
            ("--uri", "sqlite:///empty.db", "--port", str(free_port())): "has no run yet",
            ("--uri", "mlruns"): "MLflow 3 does not store runs in folders",
            ("--port", str(busy.getsockname()[1])): "of this machine is in use. Choose another one with --port",
            ("--port", "70000"): "Port 70000 does not exist. Choose one from 1 to 65535",
            ("--uri", f"http://me:secret@127.0.0.1:{free_port()}"): "Cannot open http://***@127.0.0.1",
        }
        for arguments, message in cases.items():
            assert ui.main(list(arguments)) == 1
            shown = capsys.readouterr().err
            assert message in shown
            assert "secret" not in shown
            assert len(shown) < 500
    assert server == []


def test_addresses_have_no_password() -> None:
    root, pages = "https://host/mlflow", "workflowType=machine_learning"
    assert experiment_page("https://me:secret@host/mlflow/", "7") == f"{root}/#/experiments/7?{pages}"
    assert run_page("https://me:secret@host/mlflow", "7", "ab") == f"{root}/#/experiments/7/runs/ab?{pages}"


@pytest.fixture
def served(uri: str, tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Starts ``python -m ftexp.ui`` in a process; gives what it has printed."""
    port, log = free_port(), tmp_path / "ui.log"
    with log.open("w") as text:
        process = subprocess.Popen([sys.executable, "-m", "ftexp.ui", "--port", str(port)], stdout=text, stderr=text)
        try:
            wait_until(lambda: answers(port))
            yield lambda: log.read_text().splitlines()
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in (0, 130, -signal.SIGINT)
    assert not answers(port)


@pytest.mark.slow
def test_the_address_opens_on_the_runs_and_ctrl_c_ends_the_server(served: Any, tmp_path: Path) -> None:
    browser = shutil.which("chromium-headless-shell")
    if browser is None:
        pytest.skip("there is no chromium-headless-shell")
    address = next(address for line in served() for name, _, address in [line.partition("  ")] if name == "cats")

    def page(url: str) -> str:
        options = ["--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]
        return subprocess.run(
            [browser, *options, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    assert "first" in page(address)  # the name of the run
    assert "first" not in page(address.partition("?")[0])
