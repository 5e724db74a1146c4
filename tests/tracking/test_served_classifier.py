"""The packaged model on tables; without MLflow's own checks of them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shards import png

from ftexp.errors import DataError
from ftexp.inference.classifier import Classifier
from ftexp.inference.engine import NetworkEngine
from ftexp.models.blocks import Network
from ftexp.tracking.model_package import ServedClassifier

CLASSES = ["ant", "bee", "cat", "dog"]
COLUMNS = ["label", "probability", *(f"p({name})" for name in CLASSES)]


@pytest.fixture
def classifier(network: Network) -> ServedClassifier:
    engine = NetworkEngine(network, device="cpu")
    return ServedClassifier(Classifier(engine, CLASSES, network.preprocessing, "best.pt"))


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)


def test_of_no_image_there_is_no_row(classifier: ServedClassifier) -> None:
    empty = classifier.predict(pd.DataFrame({"image": []}))
    assert (list(empty.columns), len(empty)) == (COLUMNS, 0)
    assert set(map(str, empty.dtypes[1:])) == {"float64"}


def test_rows_keep_their_names(classifier: ServedClassifier, picture: np.ndarray) -> None:
    table = classifier.predict(pd.DataFrame({"image": [picture, picture]}, index=["x", "y"]))
    assert list(table.index) == ["x", "y"]
    assert table.label["x"] in CLASSES
    assert table.probability["x"] == table.loc["x", COLUMNS[2:]].max()


def test_all_forms_of_one_picture_are_the_same(
    classifier: ServedClassifier, picture: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "ä b.png"
    Image.fromarray(picture).save(file)
    opaque = np.dstack([picture, np.full((12, 10), 255, np.uint8)])
    content = file.read_bytes()
    text = base64.b64encode(content).decode()
    forms: list[Any] = [picture, picture.tolist(), picture.astype(float), opaque, str(file), file, content]
    forms += [text, f"data:image/png;base64,{text}"]
    table = classifier.predict(pd.DataFrame({"image": forms}))
    assert table["p(ant)"].nunique() == 1


def test_who_sends_a_request_does_not_choose_what_is_downloaded(classifier: ServedClassifier) -> None:
    fsspec.filesystem("memory").pipe("/served/a.png", png("red", 0))
    with pytest.raises(DataError, match=r"^Row 0: memory://served/a\.png: there is no such file$"):
        classifier.predict(pd.DataFrame({"image": ["memory://served/a.png"]}))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no such.png", r"Row 7: no such\.png: there is no such file"),
        (b"no image", "Row 7: These bytes: is "),
        (base64.b64encode(b"no image").decode(), "Row 7: These bytes: is "),
        (None, "Row 7: 'None' of type NoneType is no image. An image is a path, a URL,"),
        (float("nan"), "Row 7: 'nan' of type float is no image"),
        (np.full((12, 10), 0.5), "Row 7: An array of float64 is an image when"),
    ],
)
def test_what_is_no_image_is_named_by_its_row(classifier: ServedClassifier, image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classifier.predict(pd.DataFrame({"image": [image]}, index=[7]))


def test_a_table_without_images_says_what_it_has(classifier: ServedClassifier) -> None:
    with pytest.raises(DataError, match="has no column 'image'; it has path, label"):
        classifier.predict(pd.DataFrame({"path": ["a"], "label": ["b"]}))
    with pytest.raises(DataError, match="it has none"):
        classifier.predict(pd.DataFrame())
