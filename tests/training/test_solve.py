"""A head that is solved, in whole runs of a tiny network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_runs
import torch
from conftest import Compose
from tiny_runs import CPU, colours, curve, fit, fresh_network, resumed, subfolder
from torch import Tensor, nn
from torch.nn import functional as F

from ftexp.config import Config
from ftexp.data.augment.transforms import Normalizer
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.evaluation.history import EpochRecord
from ftexp.models.blocks import Network
from ftexp.probe.features import Features, number_groups
from ftexp.probe.label_check import check_labels
from ftexp.training import frozen_head
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.checkpoints.run_checkpoints import RunCheckpoints
from ftexp.training.fit import Fit
from ftexp.training.inputs.features import why_unsolvable

pytestmark = pytest.mark.usefixtures("no_pictures")
SOLVED = (*CPU, "train.batch_size=8", "stage=head")


@pytest.fixture
def splits() -> Splits:
    uneven = [sample for i, sample in enumerate(colours(60, seed=1)) if sample.label != "x" or i < 20]
    return Splits(uneven, colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def features_of(network: Network, samples: list[Sample], splits: Splits) -> tuple[Tensor, Tensor]:
    """Before the last layer, computed by hand, and the labels."""
    pixels = torch.stack([torch.from_numpy(sample.pixels).permute(2, 0, 1) for sample in samples])
    module = network.module.eval()
    with torch.no_grad():
        body = module.body(module.stem(Normalizer(network.preprocessing)(pixels)))
    return body.mean(dim=(2, 3)) + module.token, torch.tensor([splits.class_to_idx[s.label] for s in samples])


def gradient(network: Network, splits: Splits, loss: nn.CrossEntropyLoss, strength: float) -> float:
    """Of torch's own loss, with the penalty on weights of features whose mean variance is 1; 0 at the optimum."""
    features, labels = features_of(network, splits.train, splits)
    shares = torch.ones(len(labels)) if loss.weight is None else loss.weight[labels]
    if loss.weight is not None:
        shares = shares * (1 - loss.label_smoothing) + loss.label_smoothing * loss.weight.mean()
    shares = (shares / shares.sum()).double()
    values = features.double()
    unit = (shares @ (values - shares @ values).square()).mean().sqrt()
    weight = network.module.fc.weight.detach().double().requires_grad_()
    bias = network.module.fc.bias.detach().double().requires_grad_()
    if loss.weight is not None:
        loss.weight = loss.weight.double()
    value = loss(values @ weight.T + bias, labels) + strength / 2 * (weight * unit).square().sum()
    parts: tuple[Tensor, ...] = torch.autograd.grad(value, (weight, bias))
    return max(float(part.abs().max()) for part in parts)


def solution(folder: Path) -> dict[str, float]:
    content: dict[str, float] = json.loads((folder / "solution.json").read_text())
    return content


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ((), None),
        (("loss.class_weights=balanced", "loss.label_smoothing=0"), "balanced"),
        (("loss.class_weights=balanced",), "balanced"),
        (("data.sampler=balanced", "loss.label_smoothing=0"), "balanced"),
    ],
    ids=["plain", "weighted", "weighted-and-smoothed", "sampler"],
)
def test_the_head_is_the_optimum_of_torchs_own_loss(
    configure: Compose, splits: Splits, tmp_path: Path, settings: tuple[str, ...], weights: str | None
) -> None:
    result = fit(configure(*SOLVED, *settings), splits, tmp_path)
    counts = torch.tensor([sum(s.label == name for s in splits.train) for name in splits.classes])
    assert counts.tolist() == [15, 15, 15, 5]
    smoothing = 0.0 if "loss.label_smoothing=0" in settings else 0.1
    balance = None if weights is None else (1 / counts) / (1 / counts).mean()
    loss = nn.CrossEntropyLoss(balance, label_smoothing=smoothing)
    assert gradient(result.network, splits, loss, solution(tmp_path)["strength"]) < 2e-4


def test_a_solved_head_is_one_epoch_with_all_that_an_epoch_leaves(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    result = fit(configure(*SOLVED), splits, tmp_path)
    (record,) = result.history
    fc, told = result.network.module.fc, solution(tmp_path)
    features, labels = features_of(result.network, splits.val, splits)
    logits = (features @ fc.weight.T + fc.bias).detach()
    assert record.val_loss == pytest.approx(float(F.cross_entropy(logits, labels)), abs=1e-5)
    assert record.val["accuracy"] == float((logits.argmax(1) == labels).double().mean())
    assert record.val["accuracy"] > 0.8
    assert (record.lr_head, record.best, record.train_loss) == (0.0, True, told["train_loss"])
    assert record.grad_norm == told["gradient_norm"] < 1e-3
    assert told["duality_gap"] <= 1e-9 * told["objective"]
    saved = load_checkpoint(tmp_path / "checkpoints" / "best.pt")["model"]
    torch.testing.assert_close(saved["fc.weight"], fc.weight.detach(), rtol=0, atol=0)
    before = fresh_network().module.state_dict()
    assert all(torch.equal(before[name], saved[name]) for name in before if not name.startswith("fc."))


def test_a_warmup_of_later_phases_is_not_too_long_for_a_solved_one(
    configure: Compose, splits: Splits, tmp_path: Path
) -> None:
    warmup = ("scheduler.warmup=null", "scheduler.warmup_epochs=1", "stage.gate=off")
    phases = "[{name: top, learn: head, solve: true, epochs: 3}, {name: all, learn: all, epochs: 2}]"
    result = fit(configure(*SOLVED, *warmup, "stage=full", f"stage.phases={phases}"), splits, tmp_path)
    assert [record.phase for record in result.history] == ["top", "all", "all"]
    assert 0 == result.history[0].lr_head < result.history[1].lr_head < result.history[2].lr_head


def test_a_given_strength_is_not_chosen(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    result = fit(configure(*SOLVED, "head.strength=0.2"), splits, tmp_path)
    told = solution(tmp_path)
    assert (told["strength"], len(json.loads((tmp_path / "solution.json").read_text())["path"])) == (0.2, 1)
    assert gradient(result.network, splits, nn.CrossEntropyLoss(label_smoothing=0.1), 0.2) < 2e-4


@pytest.mark.parametrize("cache", ["off", "disk"])
def test_the_cache_changes_nothing(configure: Compose, splits: Splits, tmp_path: Path, cache: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = fit(configure(*SOLVED), splits, tmp_path / "a")
    place = (f"runtime.cache={cache}", f"runtime.cache_folder={tmp_path}")
    other = fit(configure(*SOLVED, *place), splits, tmp_path / "b")
    torch.testing.assert_close(one.network.module.fc.weight, other.network.module.fc.weight, rtol=1e-4, atol=1e-5)


def test_a_run_killed_while_it_solves_begins_again(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoints, "save_last", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(configure(*SOLVED), splits, tmp_path)
    assert len(fit(resumed(configure(*SOLVED), tmp_path), splits, tmp_path).history) == 1


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_solved_phase_is_not_solved_again_on_resuming(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = (*CPU, "train.batch_size=8", "stage=staged", "stage.epochs=1", "stage.gate=off", "head.solver=solved")
    config = configure(*staged, "optimizer.head_lr=1e-9", "optimizer.backbone_lr=1e-9")
    whole = fit(config, splits, tmp_path)
    assert [(r.phase, r.lr_head > 0) for r in whole.history] == [("head", False), ("last", True), ("all", True)]
    assert whole.history[1].val_loss == pytest.approx(whole.history[0].val_loss, abs=1e-4), "it starts from the optimum"
    monkeypatch.setattr(frozen_head, "solve_head", killed)
    assert len(fit(resumed(config, tmp_path), splits, tmp_path).history) == 3


def started_from(configure: Compose, splits: Splits, folder: Path, *settings: str) -> Fit:
    """One epoch in which nothing moves."""
    still = ("optimizer.head_lr=1e-9", "optimizer.backbone_lr=1e-9", "stage.epochs=1", "bn_policy=eval")
    config: Config = configure(*CPU, "train.batch_size=8", *still, *settings)
    return fit(config, splits, folder)


@pytest.mark.parametrize("settings", [("stage=partial",), ("stage=full", "augment=light"), ("stage=head",)])
def test_a_stage_starts_from_the_solved_head(
    configure: Compose, splits: Splits, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    for name in ("solved", "stage", "random"):
        (tmp_path / name).mkdir()
    best = fit(configure(*SOLVED), splits, tmp_path / "solved").history[0]
    started = started_from(configure, splits, tmp_path / "stage", *settings, "head.init=solved")
    assert len(started.history) == 1
    assert started.history[0].val_loss == pytest.approx(best.val_loss, abs=1e-4)
    assert solution(tmp_path / "stage")["strength"] == solution(tmp_path / "solved")["strength"]
    plain = started_from(configure, splits, tmp_path / "random", *settings)
    assert plain.history[0].val_loss > 1.5 * best.val_loss
    assert not (tmp_path / "random" / "solution.json").exists()


def test_a_solved_start_that_no_epoch_betters_is_kept(configure: Compose, splits: Splits, tmp_path: Path) -> None:
    """At rates that destroy what the start knew; the run is stopped and resumed, too."""
    bad = (
        "optimizer.head_lr=3",
        "optimizer.backbone_lr=1e-9",
        "stage.epochs=2",
        "bn_policy=eval",
        "train.clip_norm=null",
    )
    config = configure(*CPU, "train.batch_size=8", "stage=partial", *bad, "head.init=solved", "train.metric=log_loss")
    best = fit(configure(*SOLVED, "train.metric=log_loss"), splits, subfolder(tmp_path, "solved")).history[0]
    whole = fit(config, splits, subfolder(tmp_path, "whole"))
    assert whole.best is not None
    assert min(record.val_loss for record in whole.history) > 1.1 * best.val_loss
    assert not any(record.best for record in whole.history)
    assert (whole.best.record.epoch, whole.best.scores.loss) == (0, pytest.approx(best.val_loss, abs=1e-4))
    saved = load_checkpoint(tmp_path / "whole" / "checkpoints" / "best.pt")
    assert saved["epoch"] == 0
    torch.testing.assert_close(saved["model"]["fc.weight"], whole.network.module.fc.weight.detach())
    place = subfolder(tmp_path, "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(config, splits, place, StopsAfter(1))
    again = fit(resumed(config, place), splits, place)
    assert again.best is not None
    assert (again.best.record.epoch, again.best.scores.loss) == (0, whole.best.scores.loss)
    assert curve(again) == curve(whole)


class StopsAfter:
    """Ends a run after so many epochs; the start is none."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, record: EpochRecord) -> None:
        self.left -= record.epoch > 0

    def before_epoch(self) -> None:
        if self.left == 0:
            raise KeyboardInterrupt


def test_rows_that_are_kept_by_name_come_before_a_solved_start(
    configure: Compose,
    splits: Splits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fresh_with_rows() -> Network:
        network = fresh_network()
        network.keeps_rows = True
        return network

    monkeypatch.setattr(tiny_runs, "fresh_network", fresh_with_rows)
    caplog.set_level("INFO", "ftexp")
    kept = started_from(configure, splits, tmp_path, "stage=partial", "head.init=solved")
    (tmp_path / "plain").mkdir()
    assert (
        kept.history[0].val_loss
        == started_from(configure, splits, tmp_path / "plain", "stage=partial").history[0].val_loss
    )
    assert not (tmp_path / "solution.json").exists()
    assert "head    not solved at the start: it keeps rows of the file of weights (head.init=solved)" in caplog.text


class Scaled(nn.Module):
    """A network whose logits are twice what its last layer gives."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.__dict__["_inner"] = module
        for name, child in module.named_children():
            self.add_module(name, child)
        self.token = module.token

    def forward(self, images: Tensor) -> Tensor:
        return 2 * self.fc(self.body(self.stem(images)).mean(dim=(2, 3)) + self.token)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda network: network, None),
        (lambda network: set_head(network, nn.Linear(6, 4, bias=False)), "fc, is a Linear, not a linear layer with a"),
        (lambda network: set_head(network, nn.Sequential(nn.Linear(6, 4))), "fc, is a Sequential, not a linear layer"),
        (lambda network: set_module(network, Scaled(network.module)), "are not those of its last layer, fc"),
    ],
    ids=["tiny", "no-bias", "container", "scaled"],
)
def test_what_cannot_be_solved(change: object, reason: str | None) -> None:
    assert callable(change)
    found = why_unsolvable(change(fresh_network()))
    assert found is None if reason is None else reason in str(found)


def set_head(network: Network, head: nn.Module) -> Network:
    network.module.fc = head
    return network


def set_module(network: Network, module: nn.Module) -> Network:
    network.module = module
    return network


def planted(splits: Splits) -> Splits:
    """Some labels are wrong, and all training images of a class are said to be copies of one image."""
    train = [replace(s, label="r") if s.label == "g" and i < 12 else s for i, s in enumerate(splits.train)]
    return replace(splits, train=train, copies={sample.path: "one" for sample in train if sample.label == "x"})


@pytest.mark.parametrize("settings", [(), ("stage=head", "stage.epochs=1"), ("stage=full", "stage.epochs=1")])
def test_labels_are_judged_as_the_command_judges_them(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: tuple[str, ...]
) -> None:
    """Whatever the stage: by the pretrained features."""
    caplog.set_level("INFO")
    splits = planted(splits)
    config = configure(*SOLVED, *settings)
    fit(config, splits, tmp_path)
    samples = (*splits.train, *splits.val)
    values, labels = features_of(fresh_network(), list(samples), splits)
    values = values.detach()
    assert splits.copies is not None
    features = Features(values, labels, number_groups(samples, splits.copies), samples, splits.classes)
    suspects = int(check_labels(features, config.probe.odds).suspects.sum())
    assert suspects > 1
    assert f"labels  about {suspects} of {len(samples)} look wrong to heads that did not see the image" in caplog.text
    alone = replace(features, groups=torch.arange(len(samples)))
    assert check_labels(alone, config.probe.odds).suspects.sum() < suspects


@pytest.mark.parametrize(
    "settings",
    [
        ("stage=head",),
        ("stage=partial", "stage.epochs=1", "augment=light"),
        ("stage=full", "stage.epochs=2", "head.init=solved"),
        ("stage=lora", "stage.epochs=1", "stage.rank=1", "bn_policy=train"),
    ],
)
def test_judging_labels_changes_nothing(
    configure: Compose, splits: Splits, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """Neither the solution, nor what is drawn after it, such as dropout."""
    ended = []
    for copies in ({}, None):
        torch.manual_seed(0)
        folder = subfolder(tmp_path, str(copies))
        result = fit(configure(*CPU, "train.batch_size=8", *settings), replace(splits, copies=copies), folder)
        weights = {name: tensor.tolist() for name, tensor in result.network.module.state_dict().items()}
        ended.append((curve(result), weights, torch.get_rng_state().tolist()))
    assert ended[0] == ended[1]
