"""``python -m ftexp.cross_validate`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import CommandLine, real_images
from small_pictures import SETTINGS, assert_refused_first, small_pictures

from ftexp import frozen_features
from ftexp.cross_validate import main

__all__ = ["small_pictures"]


@pytest.mark.usefixtures("small_pictures")
def test_the_folder_has_scores_of_all_folds_and_says_what_was_scored(command_line: CommandLine) -> None:
    ended = command_line(*SETTINGS, "probe.folds=2", "probe.repeats=2", "train.metric=auroc", entry=main)
    assert ended.returncode == 0, ended.stderr
    content = json.loads(Path("out/cross_validation.json").read_text())
    assert (content["folds"], content["repeats"], content["images"]) == (2, 2, 20)  # 4 of 24 are test
    assert content["scored"] == "a ridge head on the features of the frozen network, not the stage"
    assert all(one["low"] <= one["value"] <= one["high"] for one in content["metrics"].values())
    assert {"accuracy", "macro_f1", "auroc"} <= set(content["metrics"])
    with Path("out/folds.csv").open(newline="") as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 40
    with Path("out/confusion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["true class"] for row in rows] == ["ape", "bee", "cow", "emu"]
    assert sum(int(row[name]) for row in rows for name in ("ape", "bee", "cow", "emu")) == 40
    assert {"classes.csv", "confusion_matrix.png"} <= {path.name for path in Path("out").iterdir()}
    assert "The head is scored, whatever the stage" in ended.stdout


def test_one_fold_is_refused(command_line: CommandLine) -> None:
    ended = command_line("probe.folds=1", entry=main)
    assert ended.returncode == 1
    assert "probe.folds=1 is not allowed: it must be at least 2" in ended.stderr


@pytest.mark.usefixtures("small_pictures")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probe.folds=11", "probe.folds=11 is not possible: no class has more than"),
        ("train.metric=sensitivity_at_95", "sensitivity_at_95 is defined for two classes"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_the_network_runs(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    assert_refused_first(lambda: command_line(*SETTINGS, setting, entry=main), message, frozen_features, monkeypatch)


@pytest.mark.slow
def test_a_stage_is_trained_for_every_fold_of_photographs(command_line: CommandLine) -> None:
    """With real weights; the solved head of the folds agrees with the head on the frozen network."""
    settings = ("data=imagefolder", f"data.root={real_images('hymenoptera')}", "data.image_size=96", "tracking=none")
    common = (*settings, "data.split=stratified", "runtime.device=cpu", "probe.repeats=1", "probe.folds=3")
    accuracy = {}
    for name, real in (("head", ()), ("stage", ("stage=head", "real_folds=true"))):
        ended = command_line(*common, *real, f"hydra.run.dir={name}", entry=main)
        assert ended.returncode == 0, ended.stderr
        content = json.loads(Path(name, "cross_validation.json").read_text())
        accuracy[name] = content["metrics"]["accuracy"]["value"]
        assert content["images"] == 318  # of 397, 79 are test
    assert accuracy["head"] > 0.85
    assert accuracy["stage"] == pytest.approx(accuracy["head"], abs=0.03)
