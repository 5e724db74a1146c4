"""Renamed settings: what an earlier version wrote is read with the current names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import CommandLine, Compose
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from ftexp.cli.resume_arguments import expand, newest_unfinished
from ftexp.config import as_data
from ftexp.config.moved import MOVED, renamed_overrides, renamed_settings
from ftexp.sweeps import confirm
from ftexp.sweeps.space import Space


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], []),
        (["stage=head", "train.ema=0.9"], ["stage=head", "train.ema=0.9"]),
        (["train.label_smoothing=0.2", "train.focal_gamma=null"], ["loss.label_smoothing=0.2"]),
        (["+train.class_weights=balanced"], ["loss.class_weights=balanced"]),
        # A loss in which nothing is smoothed had to be given a smoothing of 0.
        (["train.loss=focal", "train.label_smoothing=0"], ["loss=focal"]),
        (["train.focal_gamma=1", "train.label_smoothing=0", "train.loss='focal'"], ["loss.gamma=1", "loss='focal'"]),
        (["train.loss=bce", "train.class_weights=none"], ["loss=bce"]),
        (["train.loss=focal", "train.label_smoothing=0", "train.focal_gamma=null"], ["loss=focal"]),
        (["loss=focal", "loss.gamma=1"], ["loss=focal", "loss.gamma=1"]),
        (["loss=focal", "train.focal_gamma=1"], ["loss=focal", "loss.gamma=1"]),
    ],
)
def test_overrides_of_a_run_that_began_before(configure: Compose, before: list[str], now: list[str]) -> None:
    assert renamed_overrides(before) == now
    assert configure(*now)


@pytest.mark.parametrize(
    ("loss", "now"),
    [
        (("cross_entropy", 0.2, None, "balanced"), ["loss.label_smoothing=0.2", "loss.class_weights=balanced"]),
        (("bce", 0.0, None, "none"), ["loss=bce", "loss.label_smoothing=0"]),
        (("focal", 0.0, 1.0, "none"), ["loss=focal", "loss.gamma=1"]),
    ],
)
def test_settings_in_run_json_from_before(
    configure: Compose, loss: tuple[str, float, float | None, str], now: list[str]
) -> None:
    expected = as_data(configure(*now))
    before = {key: value for key, value in expected.items() if key != "loss"}
    keys = [key.removeprefix("train.") for key in MOVED]
    before["train"] = {**expected["train"], **dict(zip(keys, loss, strict=True))}
    assert renamed_settings(before) == expected
    assert renamed_settings(expected) == expected


def interrupted(folder: Path, overrides: list[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"overrides": overrides}))
    (folder / "result.json").write_text('{"status": "interrupted"}')


def test_a_run_that_began_with_the_names_of_before_is_resumed(tmp_path: Path) -> None:
    interrupted(tmp_path / "a", ["train.loss=focal", "train.label_smoothing=0", "train.focal_gamma=1"])
    found = expand([f"resume={tmp_path / 'a'}"])
    assert found[:2] == ["loss=focal", "loss.gamma=1"]
    assert expand([f"resume={tmp_path / 'a'}", "loss.gamma=3"])[:2] == ["loss=focal", "loss.gamma=3"]
    assert newest_unfinished([tmp_path / "a"], ["loss.gamma=1", "loss=focal"]) == tmp_path / "a"


def test_a_trial_of_a_study_from_before_is_confirmed_with_the_names_of_now() -> None:
    space = Space({}, {}, ("loss=focal",), {}, listed=False)
    gamma = FloatDistribution(0, 3)
    trial = create_trial(value=0.5, params={"train.focal_gamma": 1.0}, distributions={"train.focal_gamma": gamma})
    assert confirm._overrides(space, trial, seed=7)[:3] == ["loss=focal", "loss.gamma=1.0", "runtime.seed=7"]


def test_an_old_name_in_a_users_file_gets_a_message_with_the_new_one(tmp_path: Path, command_line: CommandLine) -> None:
    file = tmp_path / "mine" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump({"train": {"label_smoothing": 0.2}}))
    ended = command_line("--config-dir", str(tmp_path / "mine"), "experiment=mine")
    assert ended.returncode == 1
    assert "In 'experiment/mine': train.label_smoothing is called loss.label_smoothing now" in ended.stderr
