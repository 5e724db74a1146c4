"""Which family a network belongs to."""

import pytest
import timm
import torch
from torchvision.models import get_model

from ftexp.models.family import family_of


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet18", "cnn"),
        ("efficientnet_b0", "cnn"),
        ("convnext_tiny", "convnext"),
        ("vit_b_16", "vit"),
        ("swin_t", "vit"),
        ("maxvit_t", "vit"),
        ("timm/tf_efficientnet_lite0", "cnn"),
        ("timm/resnetv2_50x1_bit", "cnn"),
        ("timm/convnext_atto", "convnext"),
        ("timm/vit_tiny_patch16_224", "vit"),
        ("timm/pvt_v2_b0", "vit"),
    ],
)
def test_attention_decides_and_then_layer_norm(name: str, family: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name[5:]) if name.startswith("timm/") else get_model(name, weights=None)
    assert family_of(module) == family
