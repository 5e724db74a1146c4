"""MLflow's store, opened with bounded patience: the tables, the experiment, the run."""

from __future__ import annotations

import getpass
import logging
import os
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from filelock import FileLock

from ftexp.config.uri import VARIABLE, hide_credentials, sqlite_file
from ftexp.errors import ConfigError
from ftexp.tracking.tracker import PARENT_RUN

log = logging.getLogger(__name__)

# How long another process may take to create the tables of a fresh database.
LOCK_TIMEOUT_SECONDS = 120

# MLflow's defaults (120 s, 7 retries with growing pauses) would hold a run up for minutes. A user's own
# setting of these variables wins.
START_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
RUN_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# No report home from a fine-tuning run, and no advice to coding agents on the terminal. These two stay set:
# MLflow looks at them again with every call.
PRIVACY = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}

# By this tag of an experiment MLflow's pages show charts and a comparison of runs first; without it, those for
# language models. A kind that the pages have guessed ends in a word that says so.
KIND, MODEL_DEVELOPMENT, GUESSED = "mlflow.experimentKind", "custom_model_development", "_inferred"


def open_run(uri: str, experiment: str, run_name: str, resumed: str | None = None) -> tuple[Any, str, str]:
    """Open the store, make the experiment where it is missing, and begin a run or go on with one.

    Args:
        resumed: the id of a run to go on with, where the store has it.

    Returns:
        MLflow's client, the id of the run, and the store's address as the client knows it.

    Raises:
        ConfigError: when the experiment was deleted.
        Exception: whatever MLflow, the database driver or the file lock raises.
    """
    for name, value in PRIVACY.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # sets the levels of its loggers, so it has to come before quiet

    with quiet(START_LIMITS), ExitStack() as stack:
        database = sqlite_file(uri)
        artifacts = None
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{database}"
            # Absolute and beside the database: the UI finds the files from whatever folder it is started in.
            folder = re.sub(r"[^\w.-]", "_", experiment).lstrip(".") or "_"
            artifacts = (database.parent / "mlruns" / folder).as_uri()
            # Processes that start at once on a fresh file would trip over each other's CREATE TABLE.
            stack.enter_context(FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT_SECONDS))
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment_id = _find_or_create_experiment(client, uri, experiment, artifacts)
        if resumed is not None:
            if _reopened(client, resumed):
                return client, resumed, uri
            log.warning("The tracking store has no run %s (any more), so a new one begins there.", resumed)
        run = client.create_run(experiment_id, run_name=run_name, tags=_origin())
    return client, run.info.run_id, uri


@contextmanager
def quiet(limits: Mapping[str, str]) -> Iterator[None]:
    """Bound MLflow's waiting and keep its libraries' chatter off the terminal, for the duration of one call."""
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
            found = client.get_experiment_by_name(name)  # somebody else made it just now
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        store = f"{VARIABLE}={shlex.quote(hide_credentials(uri))}"
        raise ConfigError(
            f"tracking.experiment={name} was deleted in MLflow. Choose another with tracking.experiment=NAME, or "
            f"restore it: {store} mlflow experiments restore --experiment-id {found.experiment_id}."
        )
    if found.tags.get(KIND, "").endswith(GUESSED) or not found.tags.get(KIND):
        client.set_experiment_tag(found.experiment_id, KIND, MODEL_DEVELOPMENT)
    return str(found.experiment_id)


def _reopened(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:  # of another store, or deleted
        return False
    return True


def _origin() -> dict[str, str]:
    """What MLflow's own fluent interface records, for the columns of its run table."""
    tags = {"mlflow.source.name": "ftexp", "mlflow.source.type": "LOCAL"}
    if PARENT_RUN in os.environ:
        tags["mlflow.parentRunId"] = os.environ[PARENT_RUN]
    with suppress(KeyError, OSError):  # a container's user id without a name
        tags["mlflow.user"] = getpass.getuser()
    return tags
