"""The head: replaced by its path, with the dropout before it kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from ftexp.errors import ConfigError
from ftexp.models.heads import replace_head, reset_head, set_drop_path_rate, set_drop_rate


def network() -> nn.Sequential:
    classifier = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.3), nn.Linear(4, 1000, bias=False))
    return nn.Sequential(nn.Flatten(), classifier)


def test_only_the_linear_layer_is_replaced() -> None:
    module = network()
    hidden, dropout = module[1][0], module[1][1]

    head = replace_head(module, "1.2", 7)

    assert module[1][2] is head
    assert (head.in_features, head.out_features, head.bias) == (4, 7, None)
    assert module[1][0] is hidden
    assert module[1][1] is dropout
    assert module(torch.zeros(2, 8)).shape == (2, 7)


def test_the_new_head_starts_as_torch_starts_a_linear_layer() -> None:
    torch.manual_seed(3)
    expected = nn.Linear(4, 7, bias=False).weight
    module = network()
    torch.manual_seed(3)
    assert torch.equal(replace_head(module, "1.2", 7).weight, expected)

    zero = nn.Sequential(nn.Linear(4, 7, bias=False))
    nn.init.zeros_(zero[0].weight)
    torch.manual_seed(3)
    reset_head(zero, ("0",))
    assert torch.equal(zero[0].weight, expected)


def test_a_wrong_path_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"model\.head=fc: .* no such module. Its top-level modules: 0, 1\."):
        replace_head(network(), "fc", 7)
    with pytest.raises(ConfigError, match=r"model\.head=1 is a Sequential; .* probably 1\.2\."):
        replace_head(network(), "1", 7)


def test_drop_rate_is_of_the_dropout_before_the_head() -> None:
    module = network()
    set_drop_rate(module, "1.2", 0.5, "net")
    assert module[1][1].p == 0.5
    with pytest.raises(ConfigError, match=r"model\.drop_rate=0\.5: net has no dropout before its head"):
        set_drop_rate(module, "1.0", 0.5, "net")


def test_drop_path_rate_keeps_the_shares_of_the_layers() -> None:
    module = nn.Sequential(StochasticDepth(0.0, "row"), StochasticDepth(0.1, "row"), StochasticDepth(0.2, "row"))
    set_drop_path_rate(module, 0.4, "net")
    assert [layer.p for layer in module] == [0.0, 0.2, 0.4]
    with pytest.raises(ConfigError, match="net has no stochastic depth"):
        set_drop_path_rate(network(), 0.4, "net")
