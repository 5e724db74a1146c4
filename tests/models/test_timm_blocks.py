"""Blocks of timm models, from timm's own layer groups."""

from __future__ import annotations

import pytest
import timm
from timm.models._registry import _model_to_module
from torch import nn

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError
from ftexp.finetune.decay import MATRIX_LAYERS, decay_rules
from ftexp.models.catalogue import build_skeleton
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
    with pytest.raises(ConfigError, match=r"no layer groups for mine: list its blocks in model\.blocks"):
        derive_blocks(module, ("head",), "mine")


def test_blocks_that_timm_calls_head_get_another_name() -> None:
    """selecsls has convolutions called ``head`` in front of its classifier ``fc``."""
    network = build_skeleton(ModelConfig("timm", "selecsls42", head=None), 2)
    assert network.names == ("stem", *(f"features{number}" for number in range(6)), "head_block", "head")
    assert network.paths("head_block") == ("head",)
    assert network.heads == ("fc",)


@pytest.mark.parametrize(
    ("name", "head", "message"),
    [
        ("mobilenetv5_300m_enc", None, r"mobilenetv5_300m_enc has no classifier 'classifier' \(named by timm\)"),
        ("qwen3_vit_88m_enc", None, r"timm names no classifier for qwen3_vit_88m_enc: give its module path"),
        (
            "resnet18",
            "head",
            r"no classifier 'head' \(model\.head\)\. Its top-level modules: conv1, bn1,.*=resnet18\.$",
        ),
    ],
)
def test_a_model_without_the_classifier_that_is_named_is_refused(name: str, head: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_skeleton(ModelConfig("timm", name, head=head), 2)


@pytest.mark.slow
def test_every_family_of_timm_has_blocks_and_decays_nothing_but_matrices_and_kernels() -> None:
    """One architecture of each of timm's modules; what is refused has no classifier."""
    families: dict[str, str] = {}
    for name in timm.list_models():
        families.setdefault(_model_to_module[name], name)
    assert len(families) > 90
    for name in families.values():
        network = build_skeleton(ModelConfig("timm", name, head=None), 2)
        layers = dict(network.module.named_modules())
        for parameter, rule in decay_rules(network.module).items():
            path, _, last = parameter.rpartition(".")
            is_matrix = isinstance(layers[path], MATRIX_LAYERS) or type(layers[path]).__name__ == "CondConv2d"
            assert not rule.decays or (is_matrix and last.startswith("weight")), (name, parameter)
