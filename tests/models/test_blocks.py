"""Blocks partition a network, or the error names what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from ftexp.errors import ConfigError
from ftexp.models.blocks import HEAD, Block, Network
from ftexp.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Net(nn.Module):
    """A token, a buffer outside the state dict, a dropout between the blocks, and two layers whose names overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 4))
        self.register_buffer("table", torch.arange(4), persistent=False)
        self.layer1 = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.drop = nn.Dropout(0.1)
        self.layer10 = nn.Linear(4, 4)
        self.pool = nn.Flatten()
        self.head_drop = nn.Dropout(0.2)
        self.fc = nn.Linear(4, 2)


def build(*blocks: tuple[str, Sequence[str]], head: str = "fc") -> Network:
    named = [Block(name, tuple(paths)) for name, paths in blocks]
    return Network(Net(), named, head=head, preprocessing=PREPROCESSING, name="net", num_classes=2)


WHOLE = (("first", ["token", "table", "layer1", "drop"]), ("second", ["layer10"]))


def test_every_tensor_is_in_exactly_one_block() -> None:
    network = build(*WHOLE)

    assert network.names == ("first", "second", "head")
    assert list(network.parameters("first")) == [
        "token",
        "layer1.0.weight",
        "layer1.0.bias",
        "layer1.1.weight",
        "layer1.1.bias",
    ]
    assert list(network.buffers("first")) == [
        "table",
        "layer1.1.running_mean",
        "layer1.1.running_var",
        "layer1.1.num_batches_tracked",
    ]
    assert list(network.parameters("second")) == ["layer10.weight", "layer10.bias"]
    assert list(network.parameters(HEAD)) == ["fc.weight", "fc.bias"]
    assert network.block_of("layer10.bias") == "second"
    assert network.block_of("table") == "first"


def test_modules_of_a_block_are_its_outermost_ones() -> None:
    network = build(*WHOLE)

    assert network.modules("first") == [network.module.layer1, network.module.drop]
    assert network.modules(HEAD) == [network.module.fc, network.module.pool, network.module.head_drop]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([("first", ["table", "layer1", "drop"]), ("second", ["layer10"])], "parameter token of net belongs to no"),
        ([("first", ["token", "layer1", "drop"]), ("second", ["layer10"])], "buffer table of net belongs to no block"),
        (
            [("first", ["token", "table", "layer1"]), ("second", ["layer10"])],
            "module Dropout drop of net belongs to no",
        ),
        (
            [("first", ["token", "table", "layer1", "drop"])],
            r"layer10.weight of net \(and 1 more\) belongs to no block",
        ),
        (
            [*WHOLE, ("third", ["layer1.1"])],
            "'layer1.1' of net is listed in the block 'third' and, as 'layer1', in 'f",
        ),
        (
            [("third", ["layer1.1"]), *WHOLE],
            "'layer1' of net is listed in the block 'first' and, as 'layer1.1', in 't",
        ),
        ([*WHOLE, ("third", ["fc"])], "'fc' of net is listed in the block 'third' and, as 'fc', in 'head'"),
        ([("first", ["layer11"])], "names 'layer11', which the network does not have. Did you mean 'layer1"),
        ([("head", ["token"]), *WHOLE], "'head' is reserved"),
    ],
)
def test_what_is_no_partition_is_refused(blocks: list[tuple[str, list[str]]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(*blocks)


def test_an_unknown_block_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no block 'secnd'\. Did you mean 'second'"):
        build(*WHOLE).parameters("secnd")
    with pytest.raises(KeyError, match="no parameter or buffer 'nothing'"):
        build(*WHOLE).block_of("nothing")


def test_a_network_may_have_two_heads() -> None:
    module = Net()
    module.fc_dist = nn.Linear(4, 2)
    blocks = [Block(name, tuple(paths)) for name, paths in WHOLE]
    network = Network(module, blocks, head=("fc", "fc_dist"), preprocessing=PREPROCESSING, name="net", num_classes=2)
    assert list(network.parameters(HEAD)) == ["fc.weight", "fc.bias", "fc_dist.weight", "fc_dist.bias"]
