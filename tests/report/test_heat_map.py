"""Where a network looked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ftexp.errors import ConfigError
from ftexp.models.blocks import Block, Network
from ftexp.preprocessing import Preprocessing
from ftexp.report.page.heat_map import heat_maps

HALF = (0.5, 0.5, 0.5)


def network_of(module: nn.Module, *blocks: Block) -> Network:
    preprocessing = Preprocessing(8, 8, "bilinear", HALF, HALF)
    return Network(module.eval(), blocks, head="fc", preprocessing=preprocessing, name="net", num_classes=2)


class Convolution(nn.Module):
    """Class 0 looks for red, class 1 for blue."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 2, 1, bias=False)
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).reshape(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))  # the other colour speaks against it

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """Patches of 2 px and a class token, which alone is read; it takes from patches as much as they are red."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, 2)
        self.norm = nn.Identity()
        self.mix = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1))
        first = tokens[:, :1] + tokens[:, 1:].mean(dim=1, keepdim=True)
        return self.fc(self.mix(torch.cat([first, tokens[:, 1:]], dim=1))[:, 0])


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(192, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(images.flatten(1)))


def test_the_place_that_spoke_for_the_class_is_bright() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[:, 0, 1, 2] = 3.0  # red
    images[:, 2, 6, 5] = 2.0  # blue
    network = network_of(Convolution(), Block("body", ("body",)))
    maps = heat_maps(network, images, torch.tensor([0, 1]))
    expected = np.zeros((2, 8, 8), np.float32)
    expected[0, 1, 2] = expected[1, 6, 5] = 1
    np.testing.assert_allclose(maps, expected, atol=1e-6)


def test_of_a_transformer_a_layer_before_the_last_is_taken() -> None:
    torch.manual_seed(0)
    network = network_of(Tokens(), Block("body", ("patches", "norm", "mix")))
    maps = heat_maps(network, torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 0]))
    assert maps.shape == (3, 4, 4)
    assert (maps.max(axis=(1, 2)) > 0).any()
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_a_network_without_places_is_named() -> None:
    with pytest.raises(ConfigError, match="net has no layer that keeps the places of an image apart"):
        heat_maps(network_of(Flat(), Block("body", ("body",))), torch.zeros(1, 3, 8, 8), torch.tensor([0]))
