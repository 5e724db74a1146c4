"""Opens MLflow's store within a limited time: the tables, the experiment, the run."""

from __future__ import annotations

import getpass
import logging
import os
import re
import shlex
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftexp.config.uri import VARIABLE, hide_credentials, sqlite_file
from ftexp.errors import ConfigError
from ftexp.tracking.pages import is_server, run_page
from ftexp.tracking.tracker import PARENT_RUN

log = logging.getLogger(__name__)

# How long another process may take to create the tables of a new database.
LOCK_TIMEOUT_SECONDS = 120

# MLflow's defaults (120 s, 7 retries with growing pauses) would delay a run for minutes. If the user has set these
# variables, those values are used.
START_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
RUN_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# Switches off MLflow's telemetry, and its hints for coding agents on the terminal. Both stay set, because MLflow reads
# them in every call.
PRIVACY = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}

# This tag says that an experiment trains models. The pages of MLflow 3.17 follow the switch at their top left, or the
# address (pages.py), instead. A kind that the pages have guessed ends in a word that says so.
KIND, MODEL_DEVELOPMENT, GUESSED = "mlflow.experimentKind", "custom_model_development", "_inferred"


def open_run(uri: str, experiment: str, run_name: str, resumed: str | None = None) -> tuple[Any, str, str]:
    """Open the store, create the experiment if it is missing, and start a run or reopen one.

    Args:
        uri: address of the store.
        experiment: name of the experiment.
        run_name: name of the run.
        resumed: the id of the run that is resumed, if the store has it.

    Returns:
        MLflow's client, the id of the run, and the store's address as the client uses it.

    Raises:
        ConfigError: if the experiment was deleted.
        Exception: any error of MLflow, the database driver or the file lock.
    """
    for name, value in PRIVACY.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # importing it sets the levels of its loggers, so this comes before quiet

    with quiet(START_LIMITS), ExitStack() as stack:
        database = sqlite_file(uri)
        artifacts = None
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{database}"
            # Absolute and beside the database, so that the UI finds the files from any working folder.
            folder = re.sub(r"[^\w.-]", "_", experiment).lstrip(".") or "_"
            artifacts = (database.parent / "mlruns" / folder).as_uri()
            # Processes that start at the same time on a new file would all try to create its tables.
            stack.enter_context(FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT_SECONDS))
            _open_once(database)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment_id = _find_or_create_experiment(client, uri, experiment, artifacts)
        if resumed is not None:
            if _reopened(client, resumed):
                _show_page(uri, experiment_id, resumed)
                return client, resumed, uri
            log.warning("The tracking store does not have the run %s (any more), so a new one is started.", resumed)
        run = client.create_run(experiment_id, run_name=run_name, tags=_origin())
    _show_page(uri, experiment_id, run.info.run_id)
    return client, run.info.run_id, uri


def _open_once(database: Path) -> None:
    """Raise SQLite's error for a file that it cannot open, which MLflow would try for 100 seconds."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version")


def _show_page(uri: str, experiment_id: str, run_id: str) -> None:
    if is_server(uri):
        log.info("mlflow  %s", run_page(uri, experiment_id, run_id))


@contextmanager
def quiet(limits: Mapping[str, str]) -> Iterator[None]:
    """Limit MLflow's waiting times, and keep the log of its libraries off the terminal, within the ``with``."""
    added = {name: value for name, value in limits.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "sqlalchemy", "urllib3")]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def _find_or_create_experiment(client: Any, uri: str, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags={KIND: MODEL_DEVELOPMENT}))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process has just created it
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        store = f"{VARIABLE}={shlex.quote(hide_credentials(uri))}"
        raise ConfigError(
            f"tracking.experiment={name} was deleted in MLflow. Choose another one with tracking.experiment=NAME, or "
            f"restore it: {store} mlflow experiments restore --experiment-id {found.experiment_id}."
        )
    if found.tags.get(KIND, "").endswith(GUESSED) or not found.tags.get(KIND):
        client.set_experiment_tag(found.experiment_id, KIND, MODEL_DEVELOPMENT)
    return str(found.experiment_id)


def _reopened(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:  # the run is of another store, or was deleted
        return False
    return True


def _origin() -> dict[str, str]:
    """The tags that MLflow's fluent interface sets, for the columns of its table of runs."""
    tags = {"mlflow.source.name": "ftexp", "mlflow.source.type": "LOCAL"}
    if PARENT_RUN in os.environ:
        tags["mlflow.parentRunId"] = os.environ[PARENT_RUN]
    with suppress(KeyError, OSError):  # in containers, a user id may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags
