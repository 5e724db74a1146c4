"""The best network as an MLflow model, which takes images in several forms and returns class names.

Its data is ``best.pt`` and its calibration: plain tensors, numbers, transforms and class names, which are read without
executing anything.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType
from PIL import Image

from ftexp.errors import DataError
from ftexp.files.run_files import with_calibration
from ftexp.inference.classifier import Classifier
from ftexp.inference.given import GivenImage

IMAGE, LABEL, PROBABILITY = "image", "label", "probability"
CHECKPOINT, EXAMPLE = "best.pt", "input_example.json"
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), IMAGE)]),
    outputs=Schema([ColSpec(DataType.string, LABEL), ColSpec(DataType.double, PROBABILITY)]),
)


class ServedClassifier:
    """The model that ``mlflow.pyfunc.load_model`` returns: ``ftexp.load``'s classifier with tables in and out."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify images.

        Args:
            data: a table with a column ``image`` of paths, of the bytes of files (as bytes, or as base64 text for
                JSON over HTTP), or of uint8 arrays [H, W, 3] or [H, W].
            params: not used; MLflow passes it.

        Returns:
            One row per image: ``label`` and ``probability`` of the predicted class, and a column ``p(NAME)`` per class.

        Raises:
            DataError: if the table does not have that column, or a row is not an image.
        """
        if IMAGE not in data:
            raise DataError(f"The table has no column '{IMAGE}'; it has {', '.join(map(str, data.columns)) or 'none'}.")
        answers = self._classifier.predict([_given(image) for image in data[IMAGE]])
        for row, answer in zip(data.index, answers, strict=True):
            if answer.error is not None:
                raise DataError(f"Row {row}: {f'{answer.path}: ' if answer.path else ''}{answer.error}")
        table = answers.to_pandas().drop(columns=["path", "error"])
        return table.astype({name: float for name in table.columns if name != LABEL}).set_axis(data.index)


def _given(image: object) -> GivenImage:
    if isinstance(image, (str, os.PathLike)):
        content = None if os.path.exists(image) else _from_base64(os.fspath(image))
        # A URL is taken as the path of a file: who sends a request to a served model must not choose what its machine
        # downloads.
        return GivenImage.of_file(os.fspath(image)) if content is None else GivenImage(content)
    return GivenImage(image)


def _from_base64(text: str) -> bytes | None:
    """The bytes of a base64 text, with or without ``data:image/png;base64,`` before it; None for any other text."""
    try:
        return base64.b64decode(text.partition(";base64,")[2] or text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def write_package(folder: Path, checkpoint: Path, model: Model) -> None:
    """Write the files of a model into a folder.

    Args:
        folder: an empty folder.
        checkpoint: the file with the best weights.
        model: MLflow's description of the model, which is completed and written as ``MLmodel``.
    """
    import mlflow.pyfunc

    for file in with_calibration(checkpoint):
        shutil.copyfile(file, folder / file.name)
    (folder / "requirements.txt").write_text("ftexp\n")
    python = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(python))  # JSON is YAML, too
    (folder / EXAMPLE).write_text(json.dumps({"columns": [IMAGE], "data": [[_gray_image()]]}))
    model.signature = SIGNATURE
    model.saved_input_example_info = {"artifact_path": EXAMPLE, "type": "dataframe", "pandas_orient": "split"}
    mlflow.pyfunc.add_to_model(
        model, loader_module=__name__, data=CHECKPOINT, python_env={"virtualenv": "python_env.yaml"}
    )
    model.save(str(folder / "MLmodel"))


def _gray_image() -> str:
    """A small grey image as base64 text, as an example of the input; it is not from the user's data."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _load_pyfunc(path: str) -> ServedClassifier:
    """Load a model; MLflow calls this. Nothing in the file is executed."""
    from ftexp.inference.load import load_checkpoint_file

    return ServedClassifier(load_checkpoint_file(Path(path), device="cpu"))
