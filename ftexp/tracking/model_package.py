"""The best network as an MLflow model: it takes images in several forms, and answers with class names.

``best.pt`` is all its data: plain tensors, transforms and class names, read without executing anything.
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
from ftexp.inference.classifier import Classifier
from ftexp.inference.given import GivenImage

IMAGE, LABEL, PROBABILITY = "image", "label", "probability"
CHECKPOINT, EXAMPLE = "best.pt", "input_example.json"
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
            data: a column ``image`` of paths, of files' bytes, as they are or as base64 text, which is what JSON over
                HTTP can hold, or of uint8 arrays [H, W, 3] or [H, W].
            params: unused; MLflow hands it in.

        Returns:
            ``label`` and ``probability`` of the likeliest class, and a column ``p(NAME)`` per class; one row per image.

        Raises:
            DataError: for a table without that column, or a row that is no image.
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
    if not isinstance(image, str):
        return GivenImage(image)
    content = None if os.path.exists(image) else _from_base64(image)
    return GivenImage(image, image) if content is None else GivenImage(content)


def _from_base64(text: str) -> bytes | None:
    """The bytes of a base64 text, with or without ``data:image/png;base64,`` before it; None where it is no such."""
    try:
        return base64.b64decode(text.partition(";base64,")[2] or text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def write_package(folder: Path, checkpoint: Path, model: Model) -> None:
    """Fill the folder of a model.

    Args:
        folder: exists, and is empty.
        checkpoint: the file with the best weights.
        model: MLflow's description, which is completed and written as ``MLmodel``.
    """
    import mlflow.pyfunc

    shutil.copyfile(checkpoint, folder / CHECKPOINT)
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
    """A small image as base64 text: an example of what the model takes, and no image of anybody's data."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _load_pyfunc(path: str) -> ServedClassifier:
    """What MLflow calls to load a model; nothing in the file is executed."""
    from ftexp.inference.load import load_checkpoint_file

    return ServedClassifier(load_checkpoint_file(Path(path), device="cpu"))
