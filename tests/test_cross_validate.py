"""``python -m ftexp.cross_validate`` as a user runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import CommandLine
from small_pictures import SETTINGS, small_pictures

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


def test_one_fold_and_training_of_folds_are_refused(command_line: CommandLine) -> None:
    ended = command_line("probe.folds=1", entry=main)
    assert ended.returncode == 1
    assert "probe.folds=1 is not allowed: it must be at least 2" in ended.stderr
    ended = command_line("probe.real_folds=true", entry=main)
    assert ended.returncode == 1
    assert "There is no setting probe.real_folds" in ended.stderr
