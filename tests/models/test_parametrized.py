"""Adapted weights: the names in the state dict, and a network without traces of adapters afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import TinyNet
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ftexp.models.blocks import Block, Network
from ftexp.models.parametrized import Adapter, adapt, adapters_state, plain_state, tensor_name
from ftexp.models.prefix import split
from ftexp.preprocessing import Preprocessing


class Plus(Adapter):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(1.0))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.offset


def test_an_adapted_network_reads_as_a_plain_one_with_the_values_that_it_computes() -> None:
    module = TinyNet()
    before = copy.deepcopy(module.state_dict())
    adapt(module, {"body.0.weight": Plus()})
    state = plain_state(module)
    assert set(state) == set(before)
    assert torch.equal(state["body.0.weight"], before["body.0.weight"] + 1)
    assert all(torch.equal(state[name], before[name]) for name in before if name != "body.0.weight")
    own = adapters_state(module)
    assert list(own) == ["body.0.parametrizations.weight.original", tensor_name("body.0.weight", "offset")]
    assert torch.equal(own["body.0.parametrizations.weight.original"], before["body.0.weight"])
    images = torch.randn(2, 3, 8, 8)
    plain = TinyNet()
    plain.load_state_dict(state)
    assert torch.equal(module.eval()(images), plain.eval()(images))


def test_afterwards_the_network_is_what_it_was_in_the_same_order() -> None:
    module = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 3))
    names, weights = [name for name, _ in module.named_parameters()], list(module.parameters())
    kinds, values = [type(part) for part in module.modules()], [weight.clone() for weight in weights]
    undo = adapt(module, {name: Plus() for name in ("0.in_proj_weight", "0.out_proj.weight", "1.weight")})
    undo()
    assert [name for name, _ in module.named_parameters()] == names
    assert all(now is weight for now, weight in zip(module.parameters(), weights, strict=True))
    assert all(torch.equal(now, value) for now, value in zip(module.parameters(), values, strict=True))
    assert [type(part) for part in module.modules()] == kinds
    assert not adapters_state(module)


def test_attention_that_only_reads_its_weights_computes_with_the_adapted_ones() -> None:
    attention, tokens = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4)
    plain = copy.deepcopy(attention).eval()
    before = plain(tokens, tokens, tokens)[0]
    module = nn.Sequential(attention).eval()
    adapt(module, {"0.in_proj_weight": Plus(), "0.out_proj.weight": Plus()})
    plain.load_state_dict({name.removeprefix("0."): tensor for name, tensor in plain_state(module).items()})
    with torch.no_grad():
        adapted = attention(tokens, tokens, tokens)[0]
        assert torch.equal(adapted, plain(tokens, tokens, tokens)[0])
    assert not torch.allclose(adapted, before)
    attention(tokens, tokens, tokens)[0].sum().backward()
    assert attention.get_parameter("parametrizations.in_proj_weight.0.offset").grad is not None


def test_parametrisations_that_a_network_has_of_its_own_are_left_alone() -> None:
    module = nn.Sequential(weight_norm(nn.Linear(3, 2)))
    state = plain_state(module)
    assert set(state) == set(module.state_dict()) == {
        "0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["body.0", "body"])
def test_a_network_is_cut_in_front_of_a_layer_whose_weight_is_adapted(path: str) -> None:
    torch.manual_seed(0)
    rest = ("body.0", "body.1", "body.2", "body.3", "token") if path == "body.0" else ("body", "token")
    blocks, half = [Block("stem", ("stem",)), Block("body", rest)], (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(8, 8, "bilinear", half, half)
    network = Network(TinyNet().eval(), blocks, head="fc", preprocessing=preprocessing, name="tiny", num_classes=4)
    adapt(network.module, {"body.0.weight": Plus()})
    images = torch.randn(3, 3, 8, 8)
    prefix, suffix = split(network, "body")
    assert torch.equal(suffix(prefix(images)), network.module(images))
    suffix(prefix(images)).sum().backward()
    assert network.module.get_parameter(tensor_name("body.0.weight", "offset")).grad is not None
