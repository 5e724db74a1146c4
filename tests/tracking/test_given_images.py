"""The packaged model on whatever a program hands it; without MLflow's own checks of the table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ftexp.errors import DataError
from ftexp.models.blocks import Network
from ftexp.tracking.model_package import Classifier

CLASSES = ["ant", "bee", "cat", "dog"]
COLUMNS = ["label", "probability", *(f"p({name})" for name in CLASSES)]


@pytest.fixture
def classifier(network: Network) -> Classifier:
    return Classifier(network.module, network.preprocessing, CLASSES)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)


def test_of_no_image_there_is_no_row(classifier: Classifier) -> None:
    empty = classifier.predict(pd.DataFrame({"image": []}))
    assert (list(empty.columns), len(empty)) == (COLUMNS, 0)
    assert set(map(str, empty.dtypes[1:])) == {"float64"}


def test_rows_keep_their_names(classifier: Classifier, picture: np.ndarray) -> None:
    table = classifier.predict(pd.DataFrame({"image": [picture, picture]}, index=["x", "y"]))
    assert list(table.index) == ["x", "y"]
    assert table.label["x"] in CLASSES
    assert table.probability["x"] == table.loc["x", COLUMNS[2:]].max()


def test_all_forms_of_one_picture_are_the_same(classifier: Classifier, picture: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "ä b.png"
    Image.fromarray(picture).save(file)
    opaque = np.dstack([picture, np.full((12, 10), 255, np.uint8)])
    forms: list[Any] = [picture, picture.tolist(), picture.astype(float), opaque, str(file), file, file.read_bytes()]
    table = classifier.predict(pd.DataFrame({"image": forms}))
    assert table["p(ant)"].nunique() == 1


def test_transparency_lies_on_white_as_in_a_file(classifier: Classifier, picture: np.ndarray) -> None:
    clear = np.dstack([picture, np.zeros((12, 10), np.uint8)])
    stream = io.BytesIO()
    Image.fromarray(clear).save(stream, "PNG")
    table = classifier.predict(pd.DataFrame({"image": [clear, stream.getvalue(), np.full((12, 10), 255)]}))
    assert table["p(ant)"].nunique() == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no such.png", r"Row 7: no such\.png: there is no such file"),
        (__file__, r"Row 7: .*test_given_images\.py: .*text"),
        (b"no image", "Row 7 holds bytes that are no image: "),
        (b"", "Row 7 holds bytes that are no image: "),
        (None, "Row 7 holds None of type NoneType. An image is a path, the bytes of a file, or an array"),
        (float("nan"), "Row 7 holds nan of type float"),
        (np.zeros((3, 12, 10)), r"Row 7 holds an array of shape \[3, 12, 10\], not \[H, W, 3\] or \[H, W\]"),
        (np.zeros((0, 0, 3)), r"shape \[0, 0, 3\]"),
        (np.full((12, 10), 0.5), "Row 7 holds an array of float64 with other values than whole numbers from 0 to 255"),
        (np.full((12, 10), 256), "of int64 with other values"),
        (np.full((12, 10), -1), "of int64 with other values"),
        (np.full((12, 10), np.nan), "of float64 with other values"),
        (np.array([["a"]]), "of <U1 with other values"),
    ],
)
def test_what_is_no_image_is_named_by_its_row(classifier: Classifier, image: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classifier.predict(pd.DataFrame({"image": [image]}, index=[7]))


def test_a_table_without_images_says_what_it_has(classifier: Classifier) -> None:
    with pytest.raises(DataError, match="has no column 'image'; it has path, label"):
        classifier.predict(pd.DataFrame({"path": ["a"], "label": ["b"]}))
    with pytest.raises(DataError, match="it has none"):
        classifier.predict(pd.DataFrame())
