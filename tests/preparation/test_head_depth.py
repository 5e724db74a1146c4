"""``head.depth``: the head on the outputs of all blocks, in whole runs."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_runs
import torch
from conftest import Compose, draw_pictures, real_images
from PIL import Image

import ftexp
from ftexp import run as run_module
from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import ConfigError
from ftexp.evaluation.history import EpochRecord
from ftexp.exporting.graph import ClassifierGraph, trace
from ftexp.inference.engine import NetworkEngine
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.models.depth_head import add_taps
from ftexp.models.taps import find_taps
from ftexp.preparation import head_depth
from ftexp.preparation import prepare as prepare_module
from ftexp.preparation.head_solver import choose_solver
from ftexp.preparation.prepare import plan
from ftexp.probe.depth import DepthProbe, Gain
from ftexp.probe.features import Features
from ftexp.run import run
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.inputs import features as features_module
from ftexp.training.inputs.prefix_key import prefix_digest

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
    (epoch,) = csv.DictReader((place / "run" / "metrics.csv").open())
    (point,) = [point for point in solution["path"] if point["strength"] == solution["strength"]]
    assert float(epoch["val_loss"]) == pytest.approx(point["val_loss"], rel=0.02)  # solved for what the layer does
    classifier = ftexp.load(place / "run", device="cpu")
    file = place / "pictures" / "light" / "3.jpg"
    answer = probabilities(classifier, file)
    assert classifier.classes[int(answer.argmax())] == "light"
    assert isinstance(classifier.engine, NetworkEngine)
    graph = ClassifierGraph(classifier.engine.network, classifier.engine.temperature)
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


def preferring(*, everything: bool) -> DepthProbe:
    return DepthProbe((), Gain(0.1 if everything else 0.0, 0.05), Gain(0.1, 0.05), 12, 12)


@pytest.fixture
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "write_depth", lambda *_: None)


@pytest.mark.usefixtures("no_plot")
def test_auto_takes_all_only_where_the_folds_prefer_it(
    configure: Compose, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {}
    for name, depth, everything in (("all", "auto", True), ("last", "auto", False), ("asked", "last", False)):
        monkeypatch.setattr(head_depth, "probe_depth", lambda *_, e=everything: preferring(everything=e))
        run(configured(configure, "stage=head", f"head.depth={depth}"), place / name)
        weights[name] = load_checkpoint(place / name / "checkpoints" / "best.pt")["model"]
        identity = json.loads((place / name / "run.json").read_text())
        result = json.loads((place / name / "result.json").read_text())
        assert identity["head_depth"] == result["head_depth"] == ("all" if everything else "last")
    assert "head.last.weight" in weights["all"]
    assert list(weights["last"]) == list(weights["asked"])
    for tensor, asked in zip(weights["last"].values(), weights["asked"].values(), strict=True):
        torch.testing.assert_close(tensor, asked, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("no_plot")
def test_the_probe_gets_the_training_images_with_their_groups_and_copies(
    configure: Compose, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Features] = []
    monkeypatch.setattr(
        head_depth, "probe_depth", lambda features, *_: seen.append(features) or preferring(everything=False)
    )
    for number in (3, 4, 5):
        shutil.copy(place / "pictures" / "dark" / "0.jpg", place / "pictures" / "dark" / f"{number}.jpg")
    settings = ("stage=head", "head.depth=auto", "audit.on_leak=warn", "audit.features=false", "audit.labels=false")
    run(configured(configure, *settings), place / "run")
    (features,) = seen
    assert {sample.split for sample in features.samples} == {"train"}
    assert [features.classes[label] for label in features.labels.tolist()] == [s.label for s in features.samples]
    group_of = {s.path: int(g) for s, g in zip(features.samples, features.groups, strict=True)}
    copies = [group for path, group in group_of.items() if path.endswith(tuple(f"dark/{n}.jpg" for n in (0, 3, 4, 5)))]
    assert len(copies) > 1
    assert len(set(copies)) == 1
    assert features.values.mean(dim=0).abs().max() < 1e-3


def test_cached_features_are_those_of_one_head(configure: Compose) -> None:
    network = tiny_runs.fresh_network()
    network.module.eval()
    runtime = prepare_runtime(configure(*tiny_runs.CPU).runtime)
    plain, of_body = (prefix_digest(network, block, runtime) for block in ("head", "body"))
    tapped, _ = add_taps(network, find_taps(network))
    assert prefix_digest(tapped, "head", runtime) != plain
    assert prefix_digest(tapped, "body", runtime) != of_body


@pytest.mark.parametrize("settings", [("stage=partial",), ("stage=head", "stage.epochs=2")])
def test_auto_leaves_a_head_that_is_trained_by_steps(configure: Compose, settings: tuple[str, ...]) -> None:
    config = configured(configure, *settings, "head.depth=auto")
    network, phases = tiny_runs.fresh_network(), choose_solver(config, plan(config), ())
    splits = Splits([], [], TestSplit([]), ())
    depth = head_depth.settle_depth(config, network, splits, phases, prepare_runtime(config.runtime))
    assert (depth.network, depth.features, depth.probe, depth.chosen) == (network, None, None, "last")


def test_auto_says_why_it_takes_the_last_features(
    configure: Compose, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ftexp")
    run(configured(configure, "stage=head", "head.depth=auto", "head.max_gib=0.001"), place / "run")
    (line,) = [message for message in caplog.messages if message.startswith("depth")]
    assert re.fullmatch(r"depth   last: 448 features of 14 images would take .* head\.max_gib=0\.001 .*auto\)", line)


def in_two_groups(folder: Path) -> list[str]:
    """Settings for the pictures with training images of two persons."""
    rows = ["path,label,split,person"]
    for number in range(12):
        split = ("val", "test")[number] if number < 2 else "train"
        person = split if number < 2 else f"{number % 2}"
        rows += [f"pictures/{name}/{number}.jpg,{name},{split},{person}" for name in ("dark", "light")]
    (folder / "pictures.csv").write_text("\n".join(rows) + "\n")
    columns = ("data.split_column=split", "data.group_column=person")
    return ["data=manifest", "data.file=pictures.csv", "data.root=.", "data.split=given", *columns]


def test_fewer_than_three_groups_decide_nothing(
    configure: Compose, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ftexp")
    told = "groups and copies make the training images 2 independent ones, and heads that leave out one after the other"
    for depth in ("auto", "all"):
        caplog.clear()
        run(configured(configure, "stage=head", *in_two_groups(place), f"head.depth={depth}"), place / depth)
        (line,) = [message for message in caplog.messages if message.startswith("depth")]
        begins = "last" if depth == "auto" else "what each block knows is not told"
        assert line.startswith(f"depth   {begins}: {told} need 3")
        assert json.loads((place / depth / "run.json").read_text())["head_depth"] == (
            "last" if depth == "auto" else "all"
        )
        assert not (place / depth / "depth.json").exists()


def test_a_run_leaves_what_each_block_knows(configure: Compose, place: Path) -> None:
    run(configured(configure, "stage=head"), place / "run")
    content = json.loads((place / "run" / "depth.json").read_text())
    assert content["chosen"] == "all"
    assert {block["block"] for block in content["blocks"]} > {"stem", "blocks1"}
    assert (place / "run" / "depth.png").exists()
    assert "What each block knows" in (place / "run" / "report.html").read_text()


class Stop:
    """Stops a run after its first epoch."""

    def __call__(self, record: EpochRecord) -> None: ...

    def before_epoch(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.usefixtures("no_plot")
def test_a_resumed_run_keeps_what_it_began_with(
    configure: Compose, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The folds are not asked again: another version might answer otherwise."""
    settings = ("stage=partial", "stage.epochs=2", "head.init=solved", "head.depth=auto", "train.batch_size=8")
    config = configured(configure, *settings)
    monkeypatch.setattr(head_depth, "probe_depth", lambda *_: preferring(everything=True))
    with pytest.raises(KeyboardInterrupt):
        run(config, place / "run", observers=(Stop(),))
    monkeypatch.setattr(head_depth, "probe_depth", lambda *_: preferring(everything=False))
    result = run(tiny_runs.resumed(config, place / "run"), place / "run")
    assert result.best.epoch in (0, 1, 2)
    assert [r["epoch"] for r in csv.DictReader((place / "run" / "metrics.csv").open())] == ["1", "2"]
    assert ftexp.load(place / "run", device="cpu").engine.network.taps


@pytest.mark.slow
def test_a_late_block_of_random_weights_is_warned_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On photographs, with real weights; the same weights without damage are not."""
    settings = ("stage=head", "head.depth=all", "data=imagefolder", f"data.root={real_images('hymenoptera')}")
    config = ftexp.compose(*settings, "tracking=none", "audit.on_leak=off", "runtime.device=cpu")
    sound, built = prepared(config, place / "a"), prepare_module.build_network

    def damaged(*given: Any) -> Network:
        network = built(*given)
        torch.manual_seed(0)
        for root in network.modules("stage6"):
            for layer in root.modules():
                if isinstance(layer, (torch.nn.Conv2d, torch.nn.BatchNorm2d)):
                    layer.reset_parameters()
        return network

    monkeypatch.setattr(prepare_module, "build_network", damaged)
    assert (sound.late_is_worse, prepared(config, place / "b").late_is_worse) == (False, True)


def prepared(config: Config, folder: Path) -> DepthProbe:
    folder.mkdir()
    depth = prepare_module.prepare(config, folder, ONE_PROCESS, score_test=False).settled.depth
    assert depth.probe is not None
    return depth.probe


def test_the_order_in_which_processes_hold_the_images_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Features] = []
    monkeypatch.setattr(head_depth, "probe_depth", lambda features, *_: seen.append(features))
    samples = [Sample(f"{number}.png", "ab"[number % 2]) for number in range(6)]
    splits = SimpleNamespace(train=samples, copies=None, classes=("a", "b"))
    network, layer = (
        SimpleNamespace(taps=[], names=["stem", "head"]),
        SimpleNamespace(standardise=lambda values: values),
    )
    values, labels = torch.arange(6.0)[:, None], torch.arange(6) % 2
    for rows in ([0, 1, 2, 3, 4, 5], [0, 2, 4, 1, 3, 5]):
        head_depth._probe(network, layer, values[rows], labels[rows], rows, splits, 0)  # type: ignore[arg-type]
    one, two = seen
    assert one.samples == two.samples == tuple(samples)
    for name in ("values", "labels", "groups"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
