"""The best checkpoint of a run as a model of MLflow's, with what it scores and on which data, and in the registry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ftexp.config.uri import VARIABLE
from ftexp.tracking.tracker import ModelToLog

NAME = "model"
ALIAS = "best"


def log_model(client: Any, uri: str, run_id: str, model: ModelToLog, metrics: Sequence[Any]) -> None:
    """Add the model to a run, and to the registry where it is to have a name there.

    Args:
        client: MLflow's.
        uri: of the store.
        metrics: of MLflow's ``Metric``, those that the run has already and the model is to have as well.

    Raises:
        Exception: whatever MLflow or the store raises.
    """
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    from ftexp.tracking.model_package import write_package

    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, name=NAME, source_run_id=run_id, model_type="image classifier", params=run.data.params
    )
    with TemporaryDirectory() as folder:
        description = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
        write_package(Path(folder), model.checkpoint, description)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=model.epoch)])
    # With the time at which they were sent: so the store knows that the run has them.
    linked = [Metric(**{**dict(metric), "model_id": logged.model_id, "run_id": run_id}) for metric in metrics]
    client.log_batch(run_id, metrics=linked)
    if model.register_as:
        with _store_of_the_process(uri):
            _register(client, run_id, logged.model_id, model.register_as)


@contextmanager
def _store_of_the_process(uri: str) -> Iterator[None]:
    """MLflow looks a model up in the store of the process when it is registered, whatever client is asked."""
    import mlflow

    before, variable = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None, os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)  # sets the environment variable, too
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop(VARIABLE, None)
        if variable is not None:
            os.environ[VARIABLE] = variable


def _register(client: Any, run_id: str, model_id: str, name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(name, source=f"models:/{model_id}", run_id=run_id, model_id=model_id)
    versions = json.dumps([{"name": name, "version": made.version}])
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: versions})
    client.set_registered_model_alias(name, ALIAS, made.version)
