"""Smaller last batches are padded on devices that prepare themselves for each size of a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Compose, TinyNet
from tiny_runs import colours, curve, fit, subfolder

from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import prepare_runtime
from ftexp.training.whole_batches import WholeBatches, whole_batches

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws for each image of a batch, padding included."""
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, images: images)


@pytest.fixture
def net() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet().eval()


def test_a_smaller_batch_has_its_own_outputs_and_gradients(net: TinyNet) -> None:
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    whole = WholeBatches(net, net, 8)
    gradients = []
    for forward in (whole, net):
        net.zero_grad()
        outputs = forward(IMAGES[:3])
        outputs.square().mean().backward()
        gradients.append([outputs, *(parameter.grad.clone() for parameter in net.parameters())])
    assert sizes == [8, 3]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert len(whole(IMAGES[:0])) == 0, "a rank without images runs nothing more"


def test_statistics_of_a_smaller_batch_are_its_own(net: TinyNet) -> None:
    other = TinyNet()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(WholeBatches(net.train(), net, 8)(IMAGES[:3]), other.train()(IMAGES[:3]))
    assert torch.equal(net.stem[1].running_mean, other.stem[1].running_mean)


def test_every_row_of_an_image_is_kept() -> None:
    """As where a prefix gives several rows for each image."""
    windows = WholeBatches(lambda images: images.repeat_interleave(4, 0), None, 8)
    assert torch.equal(windows(IMAGES[:3]), IMAGES[:3].repeat_interleave(4, 0))


@pytest.mark.parametrize(("device", "pads"), [("cpu", False), ("mps", False), ("cuda", True)])
def test_batches_are_padded_where_another_size_costs_seconds(configure: Compose, device: str, pads: bool) -> None:
    runtime = replace(prepare_runtime(configure("runtime.device=cpu").runtime), device=torch.device(device))
    assert isinstance(whole_batches(torch.relu, None, 8, runtime), WholeBatches) is pads


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (("stage=full",), {8}),
        (("stage=partial",), {8}),
        (("stage=full", "bn_policy=train"), {8, 4}),  # 4: the last batch of 20 training images
    ],
    ids=["full", "partial", "BatchNorm in training"],
)
def test_a_run_has_batches_of_one_size_and_the_same_curve(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], sizes: set[int]
) -> None:
    splits = Splits(colours(20, 0), colours(11, 1), TestSplit([]), ("b", "g", "r", "x"))
    seen: set[int] = set()
    normal = torch.nn.Conv2d.forward

    def watched(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or not layer.training:
            seen.add(len(images))
        return normal(layer, images)

    given = ("runtime.device=cpu", "runtime.workers=0", "tracking=none", "train.batch_size=8", "stage.epochs=2")
    config = configure(*given, *settings, "augment=none", "runtime.cache=memory")
    plain = curve(fit(config, splits, subfolder(tmp_path, "plain")))
    monkeypatch.setitem(KINDS, "cpu", replace(KINDS["cpu"], prepares_sizes=True))
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", watched)
        result = fit(config, splits, subfolder(tmp_path, "padded"))
        with result.inputs() as source:
            result.score(result.network.module.eval(), source.for_scoring(colours(11, 2)), "test")
    assert seen - {1, 2} == sizes, "1 and 2: images that try the network out"
    assert [number for epoch in curve(result) for number in epoch] == pytest.approx(
        [number for epoch in plain for number in epoch], rel=1e-4
    )
