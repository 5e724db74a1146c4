"""What a learning curve leaves: words, a table and a picture."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import scores_of
from matplotlib.figure import Figure

from ftexp.errors import ConfigError
from ftexp.probe.curve import LearningCurve
from ftexp.report.learning_curve_files import steps_ahead, write_learning_curve

SIZES = 400 * 2 ** (-np.arange(6)[::-1] / 2)


def made_curve() -> LearningCurve:
    """Of two classes with 500 images each; the errors of the first fall with their number, those of the other do not.

    An error is the same images' at every size, which are fewer and fewer."""
    labels = [0] * 500 + [1] * 500
    rank = np.random.default_rng(0).permutation(500)
    scores = []
    for size in SIZES:
        wrong = rank < 500 * 0.3 * (size / 400) ** -0.5
        scores.append(scores_of(labels, [*wrong.astype(int).tolist(), *[0] * 50, *[1] * 450], 2))
    return LearningCurve(SIZES, tuple(scores), np.arange(1000), np.arange(1000) % 5, np.zeros(1000, np.int64), 500)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), Path(path).touch()))
    return drawn


def test_the_lines_the_table_and_the_picture_agree(tmp_path: Path, figures: list[Figure]) -> None:
    lines = write_learning_curve(tmp_path, made_curve(), ["ant", "bee"], "accuracy", [100, 500], seed=0)
    content = json.loads((tmp_path / "learning_curve.json").read_text())
    near, far = content["more"]
    true_gain = 0.15 * ((500 / 400) ** -0.5 - (1000 / 400) ** -0.5)
    assert far["low"] < true_gain < far["high"]
    assert near["gain"] < far["gain"]
    assert far["measured_low"] < far["low"] < far["high"] < far["measured_high"]
    assert lines[0] == "curve   accuracy 0.8000 with 400 images, 0.5930 with 71; train and val have 500"
    assert lines[1].startswith("curve   100 more images (of the same kind): +")
    assert re.search(r"points \(\d\.\d to \d+\.\d; measured once -?\d\.\d to \d+\.\d\)$", lines[1])
    assert "recall of ant, now 0.700, still rises: 500 more images (of all classes): +" in lines[3]
    assert not any("bee" in line for line in lines)
    assert [(one["class"], one["still_rises"]) for one in content["classes"]] == [("ant", True), ("bee", False)]
    with (tmp_path / "learning_curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["score"] for row in rows] == ["accuracy"] * 9 + ["recall of ant"] * 9 + ["recall of bee"] * 6
    assert float(rows[5]["value"]) == pytest.approx(0.8)
    assert float(rows[5]["low"]) < 0.8 < float(rows[5]["high"])
    assert float(rows[8]["value"]) - float(rows[6]["value"]) == pytest.approx(far["gain"], abs=0.01)
    left, right = figures[0].axes
    assert left.get_ylabel() == "accuracy"
    assert right.get_title() == "classes whose recall still rises"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["now, 500 images", "ant"]
    assert max(np.max(line.get_xdata()) for line in left.lines) == pytest.approx(1000)


@pytest.mark.usefixtures("figures")
def test_a_loss_is_told_in_its_own_unit(tmp_path: Path) -> None:
    curve = made_curve()
    for size, scores in zip(SIZES, curve.scores, strict=True):
        scores.losses[:] = 0.2 + 0.1 * (size / 400) ** -1.0
    lines = write_learning_curve(tmp_path, curve, ["ant", "bee"], "log_loss", [500], seed=0)
    assert lines[0].startswith("curve   log loss 0.3000 with 400 images, 0.7657 with 71")
    assert lines[1].startswith("curve   500 more images (of the same kind): log loss -0.0")


def test_steps_are_round_and_no_more_than_there_are() -> None:
    assert steps_ahead(2411, None) == [600, 1200, 2400]
    assert steps_ahead(478, None) == [120, 240, 478]
    assert steps_ahead(478, 478) == [478]
    with pytest.raises(ConfigError, match=r"probe.more=479 is too far ahead: train and val have 478 images"):
        steps_ahead(478, 479)
