"""The best network as an MLflow model: it takes image files, bytes or arrays, and answers with class names.

``best.pt`` is its data: plain tensors, transforms and class names, read without executing anything. What
``mlflow.pytorch.load_model`` opens beside it is a graph of torch.export. No part is a pickle.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

from ftexp.data.samples import Sample
from ftexp.errors import DataError
from ftexp.inference.classifier import Classifier
from ftexp.inference.given import GivenImage
from ftexp.models.blocks import Network

IMAGE, LABEL, PROBABILITY = "image", "label", "probability"
CHECKPOINT = "best.pt"
ALIAS = "best"
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), IMAGE)]),
    outputs=Schema([ColSpec(DataType.string, LABEL), ColSpec(DataType.double, PROBABILITY)]),
)


class ServedClassifier:
    """What ``mlflow.pyfunc.load_model`` gives: ``ftexp.load``'s classifier with tables in and out, as MLflow wants."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify images.

        Args:
            data: a column ``image`` of paths, of bytes of files, or of uint8 arrays [H, W, 3] or [H, W].
            params: unused; MLflow hands it in.

        Returns:
            ``label`` and ``probability`` of the likeliest class, and a column ``p(NAME)`` per class; one row per image.

        Raises:
            DataError: for a table without that column, or a row that is no image.
        """
        if IMAGE not in data:
            raise DataError(f"The table has no column '{IMAGE}'; it has {', '.join(map(str, data.columns)) or 'none'}.")
        images = [GivenImage(image, str(image) if isinstance(image, str) else None) for image in data[IMAGE]]
        answers = self._classifier.predict(images)
        for row, answer in zip(data.index, answers, strict=True):
            if answer.error is not None:
                raise DataError(f"Row {row}: {f'{answer.path}: ' if answer.path else ''}{answer.error}")
        table = answers.to_pandas().drop(columns=["path", "error"])
        return table.astype({name: float for name in table.columns if name != LABEL}).set_axis(data.index)


def save_model(
    path: str, mlflow_model: Model, network: Network, checkpoint: Path, example: Sample, **_: object
) -> None:
    """What MLflow calls to fill a model's folder.

    Args:
        network: with the best weights in it.
        checkpoint: their file.
        example: an image, for the model's page.
    """
    import mlflow.pyfunc
    import mlflow.pytorch

    size = network.preprocessing.image_size
    mlflow.pytorch.save_model(
        copy.deepcopy(network.module).cpu().eval(),
        path,
        mlflow_model=mlflow_model,
        signature=ModelSignature(inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 3, size, size))])),
        input_example=np.zeros((2, 3, size, size), np.float32),  # two: of one, the batch would stay one for ever
        pip_requirements=["ftexp"],
        serialization_format="pt2",
    )
    (Path(path) / CHECKPOINT).write_bytes(checkpoint.read_bytes())
    (Path(path) / "serving_input_example.json").unlink(missing_ok=True)  # of the graph's tensors
    image = example.path if example.pixels is None else example.pixels.tolist()
    pd.DataFrame({IMAGE: [image]}).to_json(Path(path) / "input_example.json", orient="split", index=False)
    mlflow_model.signature = SIGNATURE
    mlflow_model.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
    }
    mlflow_model.flavors.pop("python_function")
    mlflow.pyfunc.add_to_model(mlflow_model, loader_module=__name__, data=CHECKPOINT)
    mlflow_model.save(str(Path(path) / "MLmodel"))


def _load_pyfunc(path: str) -> ServedClassifier:
    """What MLflow calls to load a model; nothing in the file is executed."""
    from ftexp.inference.load import load_checkpoint_file

    return ServedClassifier(load_checkpoint_file(Path(path), device="cpu"))


def log_model(
    uri: str, run_id: str, network: Network, checkpoint: Path, example: Sample, register_as: str | None
) -> None:
    """Add the model to a run, and to the registry where it is to have a name there.

    Raises:
        Exception: whatever MLflow or the store raises.
    """
    import mlflow

    import ftexp.tracking.model_package as flavour

    with _store(uri):
        client = mlflow.MlflowClient()
        experiment = client.get_run(run_id).info.experiment_id  # Model.log alone would take the active one
        logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        info = Model.log(
            artifact_path=None,
            name="model",
            model_id=logged.model_id,
            flavor=flavour,
            run_id=run_id,
            registered_model_name=register_as,
            network=network,
            checkpoint=checkpoint,
            example=example,
        )
        if register_as:
            client.set_registered_model_alias(register_as, ALIAS, info.registered_model_version)


@contextmanager
def _store(uri: str) -> Iterator[None]:
    """MLflow's models know the store of the process alone."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield  # the registry is the tracking store's
    finally:
        mlflow.set_tracking_uri(before)
