"""``models:/NAME@best`` and ``runs:/ID``: the checkpoint in an MLflow store."""

from __future__ import annotations

import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ftexp.config.uri import VARIABLE, check_uri, hide_credentials, sqlite_file
from ftexp.errors import CheckpointError, UserError, listed
from ftexp.files.run_files import CALIBRATION
from ftexp.tracking.mlflow_store import PRIVACY, RUN_LIMITS, quiet
from ftexp.tracking.tracker import brief

MODELS, RUNS = "models:/", "runs:/"
# As conf/tracking/mlflow.yaml has it.
DEFAULT_STORE = "sqlite:///mlflow.db"
CHECKPOINT = "best.pt"
# Folders below the artifacts of a run or a model in which the checkpoint is looked for.
MAX_DEPTH = 2
# Registered models that a store is asked to list at once.
MAX_LISTED = 100
_LOGGED_MODEL = re.compile(r"m-[0-9a-f]{32}")


def is_in_mlflow(what: str | os.PathLike[str]) -> bool:
    """Whether a name is one of MLflow's and no path."""
    return str(what).startswith((MODELS, RUNS))


def fetch_checkpoint(what: str) -> Path:
    """The checkpoint behind ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/ID`` or ``runs:/ID[/PATH]``.

    The store is the one that ``mlflow.set_tracking_uri`` was given in this process, else that of the environment
    variable ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working folder, where ftexp records by default.

    Returns:
        The file in the store where that lies on this machine; else a copy that lasts as long as the process.

    Raises:
        CheckpointError: when there is no such model or run, the run did not finish, or it has no checkpoint of ftexp.
        ConfigError: when the store's URI is none.
    """
    for name, value in PRIVACY.items():
        os.environ.setdefault(name, value)
    uri = _store()
    from mlflow import MlflowClient

    with quiet(RUN_LIMITS):
        try:
            client = MlflowClient(tracking_uri=uri)
            location, path = _of_model(client, what) if what.startswith(MODELS) else _of_run(client, what)
            return _fetch(location, path, uri, what)
        except UserError:
            raise
        except Exception as error:  # whatever MLflow, the database driver or the server raises
            raise CheckpointError(f"{what} cannot be loaded from {hide_credentials(uri)}: {brief(error)}") from error


def _store() -> str:
    import mlflow

    uri = str(mlflow.get_tracking_uri()) if mlflow.is_tracking_uri_set() else DEFAULT_STORE
    check_uri(uri)
    database = sqlite_file(uri)
    if database is not None and not database.exists():  # MLflow would make it
        raise CheckpointError(
            f"There is no MLflow store {database}. Set {VARIABLE} to the one that has the model or the run, or call "
            "from the folder where mlflow.db lies."
        )
    return uri if database is None else f"sqlite:///{database}"


def _of_model(client: Any, what: str) -> tuple[str, str]:
    """Where the artifacts of a registered or logged model lie, and the path within them that is asked for."""
    name, *rest = what.removeprefix(MODELS).strip("/").split("/")
    if _LOGGED_MODEL.fullmatch(name):
        return str(client.get_logged_model(name).artifact_location), "/".join(rest)
    name, _, alias = name.partition("@")
    known = [model.name for model in client.search_registered_models(max_results=MAX_LISTED)]
    if known and name not in known and len(known) < MAX_LISTED:  # else the store can have it all the same
        raise CheckpointError(f"{what}: there is no registered model {name}. There are: {listed(known)}.")
    if not alias and not rest:
        raise CheckpointError(f"{what} names no version. Give {MODELS}{name}@best, or {MODELS}{name}/1.")
    version = client.get_model_version_by_alias(name, alias).version if alias else rest.pop(0)
    source = str(client.get_model_version_download_uri(name, version))
    logged = source.removeprefix(MODELS).strip("/")
    if _LOGGED_MODEL.fullmatch(logged):
        source = str(client.get_logged_model(logged).artifact_location)
    return source, "/".join(rest)


def _of_run(client: Any, what: str) -> tuple[str, str]:
    """Where the artifacts of a run lie, and the path within them that is asked for."""
    run_id, _, path = what.removeprefix(RUNS).strip("/").partition("/")
    run = client.get_run(run_id)
    if run.info.status != "FINISHED" and not path:
        ended = (
            "has not finished" if run.info.status in ("RUNNING", "SCHEDULED") else f"ended as {run.info.status.lower()}"
        )
        raise CheckpointError(
            f"The run {what} {ended}. The best epoch that it reached, if it recorded one, is loaded by its file: "
            f"{RUNS}{run_id}/checkpoints/{CHECKPOINT}."
        )
    return str(run.info.artifact_uri), path


def _fetch(location: str, path: str, uri: str, what: str) -> Path:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    artifacts = get_artifact_repository(location, tracking_uri=uri)
    found = path if path.endswith(".pt") else _find(artifacts, path or None)
    if found is None:
        raise CheckpointError(f"{what} has no {CHECKPOINT}: it was not recorded by ftexp, or never got so far.")
    folder = found.rpartition("/")[0]
    beside = [file.path for file in artifacts.list_artifacts(folder or None)]
    wanted = [file for file in beside if file.rpartition("/")[2] == CALIBRATION]
    target = None if location.startswith(("file:", "/")) else tempfile.mkdtemp(dir=_copies().name)
    for file in wanted:
        artifacts.download_artifacts(file, target)
    return Path(artifacts.download_artifacts(found, target))


def _find(artifacts: Any, folder: str | None, depth: int = 0) -> str | None:
    """The path of the checkpoint, in a folder of artifacts or in one below."""
    listing = artifacts.list_artifacts(folder)
    for file in listing:
        if not file.is_dir and file.path.rpartition("/")[2] == CHECKPOINT:
            return str(file.path)
    below = [file.path for file in listing if file.is_dir and depth < MAX_DEPTH]
    return next((found for path in below if (found := _find(artifacts, path, depth + 1))), None)


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="ftexp-")
