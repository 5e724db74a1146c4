"""``python -m ftexp.ui``: MLflow's pages of a store, and the addresses at which they show the training of models."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from ftexp.cli.program import end_program, make_parser
from ftexp.config.uri import VARIABLE, at_home, check_uri, hide_credentials, sqlite_file
from ftexp.errors import ConfigError
from ftexp.machine.interpreter import quick_imports
from ftexp.tracking.mlflow_store import PRIVACY, START_LIMITS, quiet
from ftexp.tracking.pages import experiment_page, is_server
from ftexp.tracking.tracker import brief

HOST = "127.0.0.1"
MAX_PORT = 65_535
# MLflow's jobs evaluate language models.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main(arguments: list[str] | None = None) -> int:
    """Print the addresses of the experiments, then become MLflow's server; returns the exit code if it does not."""
    parser = make_parser("ui", "Compare the runs of a store in MLflow's pages.", "--port 5001")
    parser.add_argument(
        "--uri", help=f"the store: that of {VARIABLE}, or sqlite:///mlflow.db in the working folder", metavar="URI"
    )
    parser.add_argument("--port", type=int, default=5000, help="the port on this machine; 5000 if nothing is given")
    given = parser.parse_args(arguments)
    uri = given.uri or os.environ.get(VARIABLE) or "sqlite:///mlflow.db"
    return end_program(lambda: show(uri, given.port))


def show(uri: str, port: int) -> int:
    """Serve the pages of a store on this machine; of a server, only print the addresses.

    Args:
        uri: the address of the store.
        port: the port of the pages.

    Raises:
        ConfigError: if the store has no runs, cannot be opened, or the port is in use.
    """
    check_uri(uri)
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        raise ConfigError(
            f"{uri} does not exist yet: no run was recorded there. Give the store with --uri, or call this in the "
            "folder in which the runs were started."
        )
    if not is_server(uri):
        _check_port(port)
    for name, value in (PRIVACY | WITHOUT_JOBS).items():
        os.environ.setdefault(name, value)
    server = uri if is_server(uri) else f"http://{HOST}:{port}"
    for name, experiment_id in _experiments(uri):
        print(f"{name}  {experiment_page(server, experiment_id)}", flush=True)
    if not is_server(uri):
        _become_server(at_home(uri), port)
    return 0


def _experiments(uri: str) -> Sequence[tuple[str, str]]:
    """The name and the id of each experiment that has runs, the one used last first."""
    with quick_imports():
        from mlflow import MlflowClient  # takes seconds
        from mlflow.exceptions import MlflowException

    try:
        with quiet(START_LIMITS):
            client: Any = MlflowClient(tracking_uri=at_home(uri))
            experiments = client.search_experiments(order_by=["last_update_time DESC"])
            used = [one for one in experiments if client.search_runs([one.experiment_id], max_results=1)]
    except MlflowException as error:
        raise ConfigError(f"Cannot open {hide_credentials(uri)} ({brief(error)}).") from error
    if not used:
        raise ConfigError(f"{hide_credentials(uri)} has no run yet.")
    return [(one.name, one.experiment_id) for one in used]


def _check_port(port: int) -> None:
    if not 1 <= port <= MAX_PORT:
        raise ConfigError(f"Port {port} does not exist. Choose one from 1 to {MAX_PORT} with --port.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"Port {port} of this machine is in use. Choose another one with --port.") from error


def _become_server(uri: str, port: int) -> None:
    """Replace this process by the server, so that Ctrl-C and signals reach it."""
    server = ["-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    options = ["--backend-store-uri", uri, "--uvicorn-opts", "--log-level warning"]
    os.execv(sys.executable, [sys.executable, *server, *options])


if __name__ == "__main__":
    sys.exit(main())
