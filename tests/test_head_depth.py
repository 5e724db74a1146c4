"""``head.depth``: the head on the outputs of all blocks, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Compose, draw_pictures
from PIL import Image

import ftexp
from ftexp.config import Config
from ftexp.errors import ConfigError
from ftexp.exporting.graph import ClassifierGraph, trace
from ftexp.inference.engine import NetworkEngine
from ftexp.run import run
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.inputs import features as features_module

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS = (
    *("model=timm", "model.weights=null", "data=imagefolder", "data.root=pictures", "data.image_size=32"),
    *("runtime.device=cpu", "runtime.workers=0", "runtime.cache=memory", "tracking=none", "audit.on_leak=off"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(configure: Compose, *settings: str, model: str = "test_vit") -> Config:
    return configure(*SETTINGS, f"model.name={model}", "head.depth=all", *settings)


def probabilities(classifier: ftexp.Classifier, file: Path) -> np.ndarray:
    (answer,) = classifier.predict([file])
    return answer.probabilities


@pytest.mark.parametrize("model", ["test_vit", pytest.param("test_efficientnet", marks=pytest.mark.slow)])
def test_a_run_of_it_is_one_network_from_training_to_prediction_and_export(
    configure: Compose, place: Path, model: str
) -> None:
    run(configured(configure, "stage=head", model=model), place / "run")
    solution = json.loads((place / "run" / "solution.json").read_text())
    saved = load_checkpoint(place / "run" / "checkpoints" / "best.pt")
    widths = [tap["width"] for tap in saved["taps"]]
    weight = saved["model"]["head.last.weight" if model == "test_vit" else "classifier.last.weight"]
    assert weight.shape[1] == solution["num_features"] > sum(widths) > 0
    classifier = ftexp.load(place / "run", device="cpu")
    file = place / "pictures" / "light" / "3.jpg"
    answer = probabilities(classifier, file)
    assert classifier.classes[int(answer.argmax())] == "light"
    assert isinstance(classifier.engine, NetworkEngine)
    graph = ClassifierGraph(classifier.engine.network)
    pixels = torch.from_numpy(np.array(Image.open(file)))[None]
    exported = trace(graph, model).module()(pixels)
    np.testing.assert_allclose(exported[0].detach().numpy(), answer, atol=2e-3)


def test_the_training_images_are_standardised_and_one_pass_is_enough(
    configure: Compose, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[object] = []
    opened = features_module._opened
    monkeypatch.setattr(features_module, "_opened", lambda *given: passes.append(given) or opened(*given))
    run(configured(configure, "stage=head"), place / "run")
    assert len(passes) == 1
    network = ftexp.load(place / "run", device="cpu").engine.network
    layer = network.module.head.last
    assert torch.isfinite(layer.mean).all()
    assert 0 < layer.scale.max() < 1e6


def test_later_phases_train_the_blocks_below_it(configure: Compose, place: Path) -> None:
    staged = ("stage=staged", "stage.epochs=1", "head.init=solved", "train.batch_size=8", "stage.gate=off")
    run(configured(configure, *staged), place / "run")
    verdicts = json.loads((place / "run" / "result.json").read_text())["phases"]
    assert [phase["verdict"] for phase in verdicts] == ["kept"] * len(verdicts)
    assert len(ftexp.load(place / "run", device="cpu").engine.network.taps) > 1


def test_it_is_refused_where_the_head_is_not_one_linear_layer(configure: Compose, place: Path) -> None:
    with pytest.raises(ConfigError, match=r"head\.depth=all is not possible: .* has 2 heads\. Use head\.depth=last"):
        run(configured(configure, "stage=head", model="deit_tiny_distilled_patch16_224"), place / "run")
