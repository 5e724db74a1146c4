"""Blocks that are derived from a network are its main modules."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from ftexp.models.blocks import Network
from ftexp.models.derived_blocks import blocks_of, head_of
from ftexp.preprocessing import Preprocessing

EXPECTED = {
    "resnet18": ("fc", ["stem", "layer1", "layer2", "layer3", "layer4"]),
    "resnet152": ("fc", ["stem", "layer1", "layer2", "layer3", "layer4"]),
    "densenet121": ("classifier", ["stem", *(f"features_denseblock{i}" for i in range(1, 5))]),
    "efficientnet_b0": ("classifier.1", ["stem", *(f"features_{i}" for i in range(1, 8))]),
    "mobilenet_v3_small": ("classifier.3", ["stem", *(f"features_{i}" for i in range(1, 12))]),
    "convnext_tiny": ("classifier.2", ["stem", *(f"features_{i}" for i in (1, 3, 5, 7))]),
    "swin_t": ("head", ["stem", *(f"features_{i}" for i in (1, 3, 5, 7))]),
    "vit_b_16": ("heads.head", ["stem", *(f"encoder_layers_encoder_layer_{i}" for i in range(12))]),
    "alexnet": ("classifier.6", ["stem", "classifier_1", "classifier_4"]),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_networks_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        module = models.get_model(name, weights=None)
    head, names = EXPECTED[name]
    blocks = blocks_of(module, head_of(module))
    assert (head_of(module), [block.name for block in blocks]) == (head, names)
    half = (0.5, 0.5, 0.5)
    # Every tensor belongs to exactly one of them, or this raises.
    Network(
        module, blocks, head=head, preprocessing=Preprocessing(8, 8, "bilinear", half, half), name=name, num_classes=1
    )
