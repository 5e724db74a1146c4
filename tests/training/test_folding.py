"""BatchNorm with fixed statistics, computed in the convolution before it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from conftest import Compose, TinyNet, make_phase
from tiny_runs import SMALL, colours, curve, fit, subfolder
from torch import Tensor, nn
from torchvision.models import resnet18

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.models.prefix import split
from ftexp.training import folding
from ftexp.training.compilation import phase_forward
from ftexp.training.folding import FoldedForward

CPU = Runtime(torch.device("cpu"), "fp32", False, torch.contiguous_format, 0)


def in_tune(module: nn.Module) -> nn.Module:
    """In double precision, with statistics and scales that are not those of a new layer, which are kept."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    return module.double().eval()


def gradients(forward: Callable[[Tensor], Tensor], module: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    forward(inputs).square().sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def num_folded(forward: FoldedForward) -> int:
    assert forward._pairs is not None
    return len(forward._pairs)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: timm.create_model("test_efficientnet"), 13),
        (lambda: timm.create_model("tf_efficientnet_lite0"), 49),
        (lambda: resnet18(num_classes=4), 20),
        (TinyNet, 2),
    ],
    ids=["BatchNormAct2d", "Conv2dSame", "resnet18", "a bias and dropout"],
)
def test_outputs_and_gradients_of_all_parameters_are_the_same(make: Callable[[], nn.Module], count: int) -> None:
    module = in_tune(make())
    side = 8 if isinstance(module, TinyNet) else 64
    inputs = torch.randn(3, 3, side, side, dtype=torch.float64)
    forward = FoldedForward(module.forward, module, CPU)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert torch.allclose(forward(inputs), module(inputs), rtol=1e-9, atol=1e-9)
    assert num_folded(forward) == count
    found, expected = gradients(forward, module, inputs), gradients(module.forward, module, inputs)
    assert found.keys() == expected.keys() == dict(module.named_parameters()).keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-7, atol=1e-9 * expected[name].abs().max().item()), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert not [layer for layer in module.modules() if "forward" in layer.__dict__]


def test_without_gradients_nothing_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = in_tune(TinyNet())
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    forward = FoldedForward(module.forward, module, CPU)
    forward(inputs)
    monkeypatch.setattr(folding, "_convolved_and_normalised", None)  # calling it would be a TypeError
    with torch.no_grad():
        assert torch.equal(forward(inputs), module(inputs))


def test_a_frozen_convolution_is_left_alone() -> None:
    module = in_tune(TinyNet())
    module.stem[0].weight.requires_grad_(False)
    forward = FoldedForward(module.forward, module, CPU)
    forward(torch.randn(3, 3, 8, 8, dtype=torch.float64))
    assert forward._pairs == [(module.body[0], module.body[1])]


def test_with_statistics_of_the_batch_nothing_is_folded_and_the_first_look_does_not_move_them() -> None:
    folded = in_tune(TinyNet())
    plain = copy.deepcopy(folded)
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for module in (folded, plain):
        module.body[1].train()
    forward = FoldedForward(folded.forward, folded, CPU)
    assert torch.equal(forward(inputs), plain(inputs))
    assert num_folded(forward) == 0
    assert torch.equal(folded.body[1].running_mean, plain.body[1].running_mean)


def test_the_first_look_waits_for_a_batch_with_images() -> None:
    module = in_tune(TinyNet())
    forward = FoldedForward(module.forward, module, CPU)
    forward(torch.randn(0, 3, 8, 8, dtype=torch.float64))
    assert forward._pairs is None


class Branches(nn.Module):
    """What a convolution returns goes into a BatchNorm, and past it; or the BatchNorm has a look of its own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.norm, self.kind = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), kind

    def forward(self, images: Tensor) -> Tensor:
        made = self.conv(images)
        if self.kind == "past it":
            return (self.norm(made) + made).flatten(1)
        if self.kind == "twice":
            return (self.norm(made) + self.norm(made * 2)).flatten(1)
        return self.norm(made * 2).flatten(1)


@pytest.mark.parametrize("kind", ["past it", "twice", "not behind it"])
def test_layers_that_are_not_only_behind_each_other_are_not_folded(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    module = in_tune(Branches(kind))
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    forward = FoldedForward(module.forward, module, CPU)
    assert torch.equal(forward(inputs), module(inputs))
    assert num_folded(forward) == 0
    assert ("folding off: with BatchNorm in the convolutions, the outputs would differ" in caplog.text) == (
        kind == "past it"
    )


class OtherConvolution(nn.Conv2d):
    """Does more in its forward than its type says."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 2


def test_layers_of_other_types_and_with_another_forward_are_left_alone() -> None:
    usual = (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    other = in_tune(nn.Sequential(OtherConvolution(3, 4, 3), nn.BatchNorm2d(4), *copy.deepcopy(usual)))
    changed = in_tune(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *copy.deepcopy(usual)))
    changed[0].forward = changed[0].forward
    for module in (other, changed):
        forward = FoldedForward(module.forward, module, CPU)
        forward(torch.randn(2, 3, 8, 8, dtype=torch.float64))
        assert forward._pairs == [(module[2], module[3])]
    assert "forward" in changed[0].__dict__


def test_the_first_look_draws_no_random_numbers() -> None:
    module = in_tune(TinyNet())
    module.body[3].train()
    inputs = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    torch.manual_seed(3)
    expected = module(inputs)
    torch.manual_seed(3)
    forward = FoldedForward(module.forward, module, CPU)
    assert torch.allclose(forward(inputs), expected, rtol=1e-9)
    assert num_folded(forward) == 2


def test_the_first_convolution_behind_cached_activations_is_folded_as_in_the_whole_network(network: Network) -> None:
    """Otherwise the curve would depend on whether activations are cached."""
    in_tune(network.module).float()
    for parameter in network.module.stem.parameters():
        parameter.requires_grad_(False)
    prefix, suffix = split(network, "body")
    for parameter in network.module.stem.parameters():
        parameter.requires_grad_(False)
    images = torch.randn(3, 3, 8, 8)
    cached, whole = (FoldedForward(of, network.module, CPU) for of in (suffix, network.module.forward))
    with torch.no_grad():
        activations = prefix(images)
    found = gradients(cached, network.module, activations)
    expected = gradients(whole, network.module, images)
    assert cached._pairs == whole._pairs == [(network.module.body[0], network.module.body[1])]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_run_has_the_curve_of_one_without_folding(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))
    calls: list[nn.Module] = []
    original = folding._convolved_and_normalised

    def count(conv: nn.Conv2d, norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
        calls.append(conv)
        return original(conv, norm, inputs)

    monkeypatch.setattr(folding, "_convolved_and_normalised", count)
    folded = fit(configure(*SMALL, "stage=full", "runtime.fold_batchnorm=true"), splits, subfolder(tmp_path, "folded"))
    assert len(calls) == 2 * (1 + 3 * 6), "of two layers at the first look, and in three epochs of six batches"
    calls.clear()
    plain = fit(configure(*SMALL, "stage=full", "runtime.fold_batchnorm=false"), splits, subfolder(tmp_path, "plain"))
    assert calls == []
    for found, expected in zip(curve(folded), curve(plain), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def saved_bytes(forward: Callable[[Tensor], Tensor], inputs: Tensor) -> int:
    """What autograd keeps for the backward pass, each tensor once."""
    kept: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(inputs)
    return sum(size for size, _ in kept.values())


def test_outputs_of_convolutions_are_not_kept_for_the_backward_pass() -> None:
    module = timm.create_model("tf_efficientnet_lite0").eval()
    inputs = torch.randn(4, 3, 224, 224)
    forward = FoldedForward(module.forward, module, CPU)
    forward(inputs)
    assert saved_bytes(forward, inputs) < 0.8 * saved_bytes(module.forward, inputs)


@pytest.mark.parametrize(
    ("device", "setting", "folds"), [("cpu", "auto", True), ("meta", "auto", False), ("meta", True, True)]
)
def test_auto_means_on_the_cpu(
    configure: Compose,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    setting: bool | str,
    folds: bool,
) -> None:
    monkeypatch.setattr("ftexp.training.compilation.whole_batches", lambda forward, *_: forward)
    config = replace(configure().runtime, fold_batchnorm=setting)
    batches = SimpleNamespace(num_images=lambda _: 4)
    runtime = replace(CPU, device=torch.device(device))
    inputs = SimpleNamespace(network=network, forward=network.module, train=batches, val=batches, runtime=runtime)
    with phase_forward(make_phase("body", "head"), inputs, config) as forward:  # type: ignore[arg-type]
        assert isinstance(forward, FoldedForward) == folds
