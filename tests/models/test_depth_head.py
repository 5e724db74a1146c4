"""A network whose last layer also gets the averaged outputs of its blocks."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conftest import TinyNet
from torch import Tensor, nn
from torch.nn import functional as F

from ftexp.models.blocks import HEAD, Network
from ftexp.models.depth_head import StandardisedLinear, add_taps
from ftexp.models.prefix import split
from ftexp.models.taps import find_taps

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def tapped(network: Network) -> Network:
    network.module.eval()
    result, _ = add_taps(network, find_taps(network))
    layer = last(result)
    layer.set_statistics(torch.linspace(-1, 1, 10), torch.linspace(0.5, 2, 10))
    return result


def last(network: Network) -> StandardisedLinear:
    layer = network.module.get_submodule("fc.last")
    assert isinstance(layer, StandardisedLinear)
    return layer


@torch.no_grad()
def expected(network: Network, images: Tensor) -> Tensor:
    """The logits, computed by hand."""
    module, layer = network.module, last(network)
    stem = module.stem(images)
    parts = [stem.mean(dim=(2, 3)), module.body(stem).mean(dim=(2, 3)) + module.token]
    features = torch.cat([part / part.square().sum(dim=1, keepdim=True).sqrt() for part in parts], dim=1)
    variances = torch.linspace(0.5, 2, 10) ** 2
    standardised = features - torch.linspace(-1, 1, 10)
    standardised[:, :4] *= (6 / 4) ** 0.25 / variances[:4].mean().sqrt()
    standardised[:, 4:] /= variances[4:].mean().sqrt()
    return F.linear(standardised, layer.weight, layer.bias)


@torch.no_grad()
def test_the_last_layer_gets_the_standardised_outputs_of_all_blocks(network: Network) -> None:
    result = tapped(network)
    torch.testing.assert_close(result.module(IMAGES), expected(result, IMAGES))
    assert [tap.block for tap in result.taps] == ["stem"]
    assert set(result.parameters(HEAD)) == {"fc.last.weight", "fc.last.bias"}
    assert set(result.buffers(HEAD)) == {"fc.last.mean", "fc.last.scale"}
    for block in ("stem", "body"):
        assert list(result.parameters(block)) == list(network.parameters(block))


@torch.no_grad()
def test_a_part_that_is_constant_has_no_say(network: Network) -> None:
    result = tapped(network)
    last(result).set_statistics(torch.zeros(10), torch.tensor([0.0] * 4 + [2.0] * 6))
    expected = torch.tensor([[0.0] * 4 + [6**-0.5 / 2] * 6])
    torch.testing.assert_close(last(result).standardise(torch.full((1, 10), 7.0)), expected)


@torch.no_grad()
def test_undone_the_network_is_as_before(network: Network) -> None:
    network.module.eval()
    before, names = network.module(IMAGES), list(network.module.state_dict())
    _, undo = add_taps(network, find_taps(network))
    undo()
    assert torch.equal(network.module(IMAGES), before)
    assert list(network.module.state_dict()) == names
    assert not any(module._forward_pre_hooks for module in network.module.modules())


@torch.no_grad()
def test_a_copy_takes_its_own_taps(network: Network) -> None:
    result = tapped(network)
    twin = copy.deepcopy(result.module)
    result.module.stem[0].weight.zero_()
    torch.testing.assert_close(twin(IMAGES), expected(_with(result, twin), IMAGES))
    assert not torch.allclose(twin(IMAGES), result.module(IMAGES))


@torch.no_grad()
def test_forwards_at_the_same_time_do_not_mix_their_taps(network: Network) -> None:
    """A server answers in several threads: here the second forward runs while the first is between its blocks."""
    result, others = tapped(network), IMAGES.flip(0) + 1
    answers: list[Tensor] = []

    def meanwhile(*_: object) -> None:
        handle.remove()
        thread = threading.Thread(target=lambda: answers.append(result.module(others)))
        thread.start()
        thread.join()

    handle = result.module.body[1].register_forward_hook(meanwhile)
    answers.insert(0, result.module(IMAGES))
    torch.testing.assert_close(answers[0], expected(result, IMAGES))
    torch.testing.assert_close(answers[1], expected(result, others))


@torch.no_grad()
def test_the_frozen_part_before_the_head_gives_all_features(network: Network) -> None:
    result = tapped(network)
    prefix, suffix = split(result, HEAD)
    assert prefix(IMAGES).shape == (3, 10)
    assert torch.equal(suffix(prefix(IMAGES)), result.module(IMAGES))


class WithDropout(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(self.body(self.stem(images)).mean(dim=(2, 3)) + self.token))


@torch.no_grad()
def test_so_does_one_before_a_dropout_of_the_head(network: Network) -> None:
    module = WithDropout()
    module.load_state_dict(network.module.state_dict())
    plain = Network(module, network.blocks, head="fc", preprocessing=network.preprocessing, name="net", num_classes=4)
    result = tapped(plain)
    prefix, suffix = split(result, HEAD)
    assert prefix(IMAGES).shape == (3, 10)
    assert torch.equal(suffix(prefix(IMAGES)), result.module(IMAGES))


@torch.no_grad()
@pytest.mark.parametrize("channels_last", [False, True])
def test_cut_between_blocks_the_earlier_taps_come_with_the_activations(network: Network, channels_last: bool) -> None:
    if channels_last:
        network.module.to(memory_format=torch.channels_last)
    result = tapped(network)
    prefix, suffix = split(result, "body")
    rows = prefix(IMAGES)
    assert rows.shape == (3, 4 * 8 * 8 + 4)
    assert prefix.bytes_per_image == 4 * (4 * 8 * 8 + 4)
    for order in ([0, 1, 2], [2, 0], [1]):
        torch.testing.assert_close(suffix(rows[order]), result.module(IMAGES[order]))
    torch.testing.assert_close(result.module(IMAGES), expected(result, IMAGES))  # nothing is left of the suffix


@torch.no_grad()
def test_a_suffix_that_failed_leaves_nothing_to_the_next_forward(network: Network) -> None:
    result = tapped(network)
    prefix, suffix = split(result, "body")
    rows = prefix(IMAGES.flip(0))
    with failing(result.module.body[0]), pytest.raises(RuntimeError, match="out of memory"):
        suffix(rows)
    torch.testing.assert_close(result.module(IMAGES), expected(result, IMAGES))


@contextmanager
def failing(layer: nn.Module) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = layer.register_forward_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def test_blocks_learn_through_their_taps(network: Network) -> None:
    result = tapped(network)
    with torch.no_grad():
        last(result).weight[:, 4:] = 0  # the gradient can only come through the tap
    result.module(IMAGES).square().sum().backward()
    assert result.module.stem[0].weight.grad.abs().max() > 0


def _with(network: Network, module: torch.nn.Module) -> Network:
    return Network(
        module,
        network.blocks,
        head="fc.last",
        preprocessing=network.preprocessing,
        name="twin",
        num_classes=4,
        taps=network.taps,
    )


@pytest.mark.slow
def test_compiled_it_answers_the_same(network: Network) -> None:
    result = tapped(network)
    compiled = torch.compile(lambda images: result.module(images), backend="eager", dynamic=False)
    with torch.no_grad():
        for images in (IMAGES, IMAGES.flip(0) + 1):
            torch.testing.assert_close(compiled(images), expected(result, images))
    compiled(IMAGES).square().sum().backward()
    assert result.module.stem[0].weight.grad.abs().max() > 0
