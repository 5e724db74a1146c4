"""Scores of labelled images: classes go by name, what the classifier lacks is wrong, and mistakes are listed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import scores_of
from PIL import Image
from torch import Tensor

from ftexp.errors import ConfigError, DataError
from ftexp.evaluation import intervals
from ftexp.inference.calibration import AbstainRule, Calibration, SetRule
from ftexp.inference.classifier import Classifier
from ftexp.inference.evaluation import Evaluation
from ftexp.inference.run_evaluation import aligned
from ftexp.preprocessing import Preprocessing
from ftexp.report.evaluation_files import evaluation_content, write_evaluation
from ftexp.report.evaluation_text import evaluation_lines

HALF = (0.5, 0.5, 0.5)
CALIBRATION = Calibration("0", 9, 0.5, {}, {}, SetRule("lac", 0.9, 0.5, 0.9, 1.0), AbstainRule(0.9, 0.9, 0.5, 0.9))


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "NUM_RESAMPLES", 10)


class Told:
    """Answers with the probabilities that the first pixel of an image numbers."""

    device, temperature, max_batch_mib = "cpu", 1.0, math.inf

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self._rows = np.array(rows, np.float32)

    def prepare(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image))

    def probabilities(self, images: Sequence[Tensor]) -> np.ndarray:
        return self._rows[[int(image[0, 0, 0]) for image in images]]


def evaluate(
    rows: Sequence[Sequence[float]],
    labels: Sequence[str],
    classes: Sequence[str] = ("dog", "ant"),
    calibration: Calibration | None = None,
) -> Evaluation:
    """Of a classifier that answers with these probabilities."""
    preprocessing = Preprocessing(8, 8, "bilinear", HALF, HALF)
    classifier = Classifier(Told(rows), classes, preprocessing, "model.onnx", calibration=calibration)
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(len(rows))]
    return classifier.evaluate(list(zip(images, labels, strict=True)), batch_size=2)


def test_labels_are_matched_by_name_whatever_their_order() -> None:
    found = evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["dog", "ant", "ant"])
    assert found.metrics["accuracy"] == pytest.approx(2 / 3)
    assert found.scores.confusion.tolist() == [[1, 0], [1, 1]]
    assert found.scores.loss == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3)
    assert found.confused_pairs() == [("ant", "dog", 1)]
    assert found.most_wrong() == [2]
    (row,) = (row for row in found.rows() if not row["right"])
    assert (row["label"], row["prediction"], row["rank"]) == ("ant", "dog", 2)
    assert row["probability_of_label"] == pytest.approx(0.4)
    assert list(found.to_pandas()["right"]) == [True, True, False]
    assert "sensitivity_at_90" in found.metrics
    assert "top_5" not in found.metrics


def test_an_accent_written_apart_is_the_same_name() -> None:
    assert evaluate([[0.9, 0.1]], ["caf\u0065\u0301"], ("caf\u00e9", "tea")).metrics["accuracy"] == 1


def test_images_of_a_class_that_the_classifier_lacks_are_wrong() -> None:
    found = evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], ["dog", "emu", "emu", "bat"])
    assert found.classes == ("dog", "ant", "bat", "emu")
    assert (found.extra_classes, found.missing_classes) == (("bat", "emu"), ("ant",))
    assert found.metrics["accuracy"] == 0.25
    assert "log_loss" not in found.metrics
    assert "sensitivity_at_90" not in found.metrics
    assert found.known().metrics["accuracy"] == 1
    assert found.known().scores.loss == pytest.approx(-math.log(0.9), rel=1e-6)
    assert found.most_wrong() == [1, 3, 2], "of equal ones the surest first"
    text = "\n".join(evaluation_lines(found))
    assert "the classifier lacks bat, emu: their 3 images count as wrong. Of the 1 others, 1.0000 are right" in text
    assert "no image of ant" in text
    content = evaluation_content(found)
    assert content["classes"] == {"missing": ["ant"], "extra": ["bat", "emu"]}
    json.dumps(content)


def test_a_class_that_is_lacking_is_not_among_the_top_five() -> None:
    rows = [[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]] * 2
    assert evaluate(rows, ["a", "x"], "abcdef").metrics["top_5"] == 0.5


def test_the_calibrated_figures_stand_beside_the_others() -> None:
    found = evaluate([[0.6, 0.4], [0.3, 0.7]], ["dog", "ant"], calibration=CALIBRATION)
    sure = 0.36 / (0.36 + 0.16), 0.49 / (0.49 + 0.09)
    np.testing.assert_allclose(found.probabilities[[0, 1], [0, 1]], sure, rtol=1e-6)
    assert found.metrics["log_loss"] == pytest.approx(-(math.log(0.6) + math.log(0.7)) / 2, rel=1e-6)
    content = evaluation_content(found)["calibration"]
    assert isinstance(content, dict)
    assert content["calibrated"]["ece"] == pytest.approx(1 - sum(sure) / 2)
    assert content["uncalibrated"]["ece"] == pytest.approx(0.35)
    assert content["sets"] == {"method": "lac", "chosen_coverage": 0.9, "coverage": 1.0, "mean_size": 1.0}
    assert content["abstain"]["answered"] == 0.0
    assert math.isnan(content["abstain"]["accuracy"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "emu"], r"None of the data's classes \(cat, emu\) is among those of the classifier \(dog, ant\)"),
        ([], "There is no image to evaluate"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate([[0.9, 0.1]] * len(labels), labels)


def test_what_is_no_labelled_data_is_refused(tmp_path: Path) -> None:
    classifier = Classifier(Told([[0.9, 0.1]]), ("dog", "ant"), Preprocessing(8, 8, "bilinear", HALF, HALF), "m.onnx")
    with pytest.raises(DataError, match="is no pair of an image and the name of its class"):
        classifier.evaluate([tmp_path])
    with pytest.raises(DataError, match="int is no labelled data"):
        classifier.evaluate(3)
    with pytest.raises(ConfigError, match=r"m\.onnx does not say which run trained it"):
        classifier.evaluate()
    with pytest.raises(ConfigError, match="split=val chooses from a run or a data set"):
        classifier.evaluate([], split="val")
    (tmp_path / "no.png").write_text("text")
    with pytest.raises(DataError, match="None of the 1 images can be read"):
        classifier.evaluate([(tmp_path / "no.png", "dog")])


def test_runs_with_other_orders_of_classes_and_images_are_aligned() -> None:
    one = evaluate([[0.9, 0.1], [0.8, 0.2]], ["dog", "ant"])
    other = evaluate([[0.9, 0.1], [0.8, 0.2]], ["dog", "ant"], ("ant", "dog"))
    backwards = Evaluation(other.classes, 2, other.images[::-1], other.scores.take(np.array([1, 0])))
    first, second = aligned([one, backwards])
    assert first.labels.tolist() == second.labels.tolist() == [0, 1]
    assert (first.predictions.tolist(), second.predictions.tolist()) == ([0, 0], [1, 1])
    assert second.probabilities is not None
    np.testing.assert_allclose(second.probabilities[0], [0.1, 0.9], rtol=1e-6)
    shorter = Evaluation(one.classes, 2, one.images[:1], scores_of([0], [0], 2))
    with pytest.raises(DataError, match=r"validated on different images: 1 of the 2 .* the 1 of another"):
        aligned([one, shorter])


def test_the_files_of_an_evaluation(tmp_path: Path) -> None:
    found = evaluate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["dog", "ant", "ant"], calibration=CALIBRATION)
    write_evaluation(found, tmp_path / "new", {"run": "outputs/1"})
    assert {file.name for file in (tmp_path / "new").iterdir()} == {
        "evaluation.json",
        "classes.csv",
        "predictions.csv",
        "confusion_matrix.png",
        "reliability.png",
        "most_wrong.png",
    }
    content = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert content["run"] == "outputs/1"
    assert content["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert content["most_confused"] == [{"class": "ant", "predicted": "dog", "images": 1}]
    assert len((tmp_path / "new" / "predictions.csv").read_text().splitlines()) == 4
    with pytest.raises(ConfigError, match="new is there already and not empty"):
        write_evaluation(found, tmp_path / "new")
