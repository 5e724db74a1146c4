"""``python -m ftexp.compare_models`` as a user runs it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from small_pictures import SETTINGS, assert_refused_first, small_pictures, tiny_network

from ftexp import frozen_features, probed_models
from ftexp.compare_models import main
from ftexp.config import ModelConfig
from ftexp.errors import WeightsError
from ftexp.models.blocks import Network
from ftexp.models.weights import Weights
from ftexp.probe.cross_validation import cross_validate as scored

__all__ = ["small_pictures"]
FOLDS = ("probe.folds=2", "probe.repeats=2")


def locate(config: ModelConfig) -> Weights | None:
    if config.name == "resnet50":
        raise WeightsError("Its weights are not in\n    /cache\nand not at hand. What you can do:\n    ...")
    return None


def build(config: ModelConfig, *_: object) -> Network:
    """The tiny network; ``resnet18`` is one that sees no colour."""
    network = tiny_network()
    if config.name == "resnet18":
        with torch.no_grad():
            weight = network.module.stem[0].weight
            weight.copy_(weight.mean(dim=1, keepdim=True).expand_as(weight))
    return network


@pytest.fixture(autouse=True)
def _networks(small_pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probed_models, "locate_weights", locate)
    monkeypatch.setattr(frozen_features, "build_network", build)


def rows() -> Sequence[dict[str, str]]:
    with Path("out/compare_models.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_networks_are_ranked_on_the_same_folds_and_what_is_missing_is_a_row(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(probed_models, "cross_validate", lambda *given: (calls.append(given[1:4]), scored(*given))[1])
    models = "models=resnet18,resnet50,efficientnet_lite0,efficientnet_lite0@null"
    ended = command_line(models, *SETTINGS, *FOLDS, entry=main)
    assert ended.returncode == 0, ended.stderr
    assert calls == [(2, 2, 0)] * 3
    best, same, blind, missing = rows()
    names = ["efficientnet_lite0", "efficientnet_lite0@null", "resnet18", "resnet50"]
    assert [row["model"] for row in (best, same, blind, missing)] == names
    assert [float(same[f"difference{part}"]) for part in ("", "_low", "_high")] == [0, 0, 0]
    assert "These images do not tell efficientnet_lite0, efficientnet_lite0@null apart." in ended.stdout
    assert float(best["accuracy"]) > float(blind["accuracy"])
    assert float(blind["difference"]) == pytest.approx(float(blind["accuracy"]) - float(best["accuracy"]))
    assert float(blind["difference_low"]) <= float(blind["difference"]) <= float(blind["difference_high"])
    assert best["difference"] == ""
    assert missing["reason"] == "Its weights are not in /cache and not at hand."
    assert float(best["seconds_per_image"]) > 0
    content = json.loads(Path("out/compare_models.json").read_text())
    pairs = [(pair["model"], pair["other"]) for pair in content["pairs"]]
    assert pairs == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    assert "fine-tuned networks may rank differently" in ended.stdout
    assert "resnet50 is left out: Its weights are not in /cache and not at hand." in ended.stdout
    first = next(line for line in ended.stdout.splitlines() if line.startswith("efficientnet_lite0"))
    assert "M" in first


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            "models=[resnet50,timm/resnet50]",
            "No network is left to compare:\n  resnet50: Its weights are not in /cache",
        ),
        ("model=resnet18", "model=resnet18 chooses one network, and this command compares several"),
    ],
)
def test_what_cannot_be_compared_is_refused(command_line: CommandLine, models: str, message: str) -> None:
    ended = command_line(models, *SETTINGS, *FOLDS, entry=main)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert not Path("out/splits.csv").exists()  # it is known before data is read


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probe.folds=11", "probe.folds=11 is not possible: no class has more than"),
        ("train.metric=sensitivity_at_95", "sensitivity_at_95 is defined for two classes"),
    ],
)
def test_images_that_cannot_be_scored_are_refused_before_a_network_runs(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch, setting: str, message: str
) -> None:
    two = ("models=resnet18,efficientnet_lite0", *SETTINGS, setting)
    assert_refused_first(lambda: command_line(*two, entry=main), message, probed_models, monkeypatch)
