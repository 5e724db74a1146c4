"""``python -m ftexp.learning_curve`` as a user runs it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import CommandLine
from small_pictures import SETTINGS, assert_refused_first, small_pictures
from workplaces import draw_noise

from ftexp import frozen_features
from ftexp.learning_curve import main

__all__ = ["small_pictures"]


@pytest.mark.usefixtures("no_pictures")
def test_more_images_are_told_of_in_words_and_files(small_pictures: Path, command_line: CommandLine) -> None:
    shutil.rmtree("base")
    draw_noise(small_pictures / "base", of_class=15)
    ended = command_line(*SETTINGS, "probe.repeats=1", "probe.more=40", entry=main)
    assert ended.returncode == 0, ended.stderr
    content = json.loads(Path("out/learning_curve.json").read_text())
    assert (content["images"], content["metric"], content["heads_per_size"]) == (48, "accuracy", 5)  # 12 of 60 are test
    (step,) = content["more"]
    assert (step["more"], step["images"]) == (40, 88)
    assert 0 <= step["low"] <= step["gain"] <= step["high"]
    assert content["now"]["low"] <= content["now"]["value"] <= content["now"]["high"]
    with Path("out/learning_curve.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "accuracy"]
    assert [row["from"] for row in rows] == [*["measured"] * 4, "power law", "power law"]
    assert [float(row["images"]) for row in rows[-2:]] == [48, 88]
    assert step["measured_low"] <= step["gain"] <= step["measured_high"]
    gain, *bands = (100 * step[name] for name in ("gain", "low", "high", "measured_low", "measured_high"))
    points = "{:+.1f} points ({:.1f} to {:.1f}; measured once {:.1f} to {:.1f})".format(gain, *bands)
    assert f"40 more images (of the same kind): {points}" in ended.stdout
    assert Path("out/learning_curve.png").exists()


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probe.folds=5", "Too few images for a learning curve: train and val have 5 independent images of ape"),
        ("probe.more=21", "probe.more=21 is too far ahead: train and val have 20 images"),
        ("probe.more=0", "probe.more=0 is not allowed: it must be null or at least 1"),
    ],
)
def test_what_cannot_be_told_is_refused_before_the_network_runs(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    assert_refused_first(lambda: command_line(*SETTINGS, setting, entry=main), message, frozen_features, monkeypatch)
