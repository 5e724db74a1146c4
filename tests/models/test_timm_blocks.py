"""Blocks of timm models, from timm's own layer groups."""

from __future__ import annotations

import pytest
import timm
from torch import nn

from ftexp.errors import ConfigError
from ftexp.models.timm_blocks import derive_blocks


def blocks(name: str, **options: object) -> dict[str, tuple[str, ...]]:
    module = timm.create_model(name, **options)
    return {block.name: block.paths for block in derive_blocks(module, ("head",), name)}


def test_a_plain_transformer_has_its_embedding_its_layers_and_the_norm_with_the_last() -> None:
    assert blocks("vit_tiny_patch16_224", depth=3) == {
        "stem": ("cls_token", "pos_embed", "patch_embed", "pos_drop"),
        "blocks0": ("blocks.0",),
        "blocks1": ("blocks.1",),
        "blocks2": ("blocks.2", "norm"),
    }


def test_a_stage_transformer_has_stages_and_leaves_pooling_and_dropout_to_the_head() -> None:
    module = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1))
    derived = derive_blocks(module, ("head.fc",), "swin")
    assert {block.name: block.paths for block in derived} == {
        "stem": ("patch_embed",),
        "layers0": ("layers.0",),
        "layers1": ("layers.1",),
        "layers2": ("layers.2",),
        "layers3": ("layers.3", "norm"),
    }


def test_a_convolution_before_the_pooling_goes_with_the_last_stage() -> None:
    module = timm.create_model("efficientnet_b0")
    derived = derive_blocks(module, ("classifier",), "efficientnet_b0")
    assert derived[0].paths == ("conv_stem", "bn1")
    assert derived[-1].name == "blocks6"
    assert derived[-1].paths == ("blocks.6", "conv_head", "bn2")


def test_without_layer_groups_the_largest_sequence_is_taken_apart() -> None:
    module = timm.create_model("pit_ti_224")
    assert not hasattr(module, "group_matcher")
    derived = derive_blocks(module, ("head",), "pit_ti_224")
    assert {block.name: block.paths for block in derived} == {
        "stem": ("pos_embed", "cls_token", "patch_embed", "pos_drop"),
        "transformers0": ("transformers.0",),
        "transformers1": ("transformers.1",),
        "transformers2": ("transformers.2", "norm"),
    }


def test_without_anything_to_take_apart_the_blocks_must_be_named() -> None:
    module = nn.Module()
    module.body, module.head = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"no layer groups for mine: name its blocks under model\.blocks"):
        derive_blocks(module, ("head",), "mine")
