from __future__ import annotations

import pytest
import timm
import torch
from conftest import make_phase
from torch import nn
from torchvision import models

from ftexp.config.optim import AdamWConfig
from ftexp.finetune.decay import decay_rules
from ftexp.finetune.freezing import open_blocks
from ftexp.finetune.param_groups import block_rate, build_param_groups, group_table
from ftexp.models.blocks import Network

NAMES = ("stem", "layer1", "layer2", "head")


def test_rates_fall_by_the_decay_from_the_block_next_to_the_head_down() -> None:
    config = AdamWConfig(head_lr=1e-2, backbone_lr=1e-3, block_decay=0.5, block_lrs={"layer1": 7.0})
    assert [block_rate(config, NAMES, block) for block in NAMES] == pytest.approx([0.25e-3, 7.0, 1e-3, 1e-2])


def test_groups_are_block_times_decay_over_trainable_parameters_only(network: Network) -> None:
    phase = make_phase("body", "head", weight_decay=0.1)
    open_blocks(network, phase)
    groups = build_param_groups(network, phase)
    assert [(g.block, g.role, g.lr, g.weight_decay, set(g.names)) for g in groups] == [
        ("body", "matrix", 1e-3, 0.1, {"body.0.weight"}),
        ("body", "vector", 1e-3, 0.0, {"body.0.bias", "body.1.weight", "body.1.bias", "token"}),
        ("head", "head", 1e-2, 0.1, {"fc.weight"}),
        ("head", "vector", 1e-2, 0.0, {"fc.bias"}),
    ]


def test_the_table_accounts_for_every_tensor_once(network: Network) -> None:
    phase = make_phase("body", "head", policy="freeze_affine", weight_decay=0.1)
    open_blocks(network, phase)
    rows = group_table(network, build_param_groups(network, phase))
    assert [(row["block"], row["role"], row["tensors"], row["trainable"], row["rule"]) for row in rows] == [
        ("stem", None, 3, False, "frozen"),
        ("body", "matrix", 1, True, "weight matrix"),
        ("body", "vector", 2, True, "one-dimensional, bias"),
        ("body", None, 2, False, "frozen"),
        ("head", "head", 1, True, "weight matrix"),
        ("head", "vector", 1, True, "bias"),
    ]
    assert sum(int(row["parameters"]) for row in rows) == sum(p.numel() for p in network.module.parameters())


@pytest.mark.parametrize("by_role", [False, True])
def test_roles_have_separate_groups_if_the_optimizer_needs_them(
    network: Network, by_role: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.module.token = nn.Parameter(torch.zeros(1, 2, 6))
    network.module.no_weight_decay = lambda: {"token"}
    monkeypatch.setattr(AdamWConfig, "by_role", by_role)
    phase = make_phase("body", "head", weight_decay=0.1)
    open_blocks(network, phase)
    vectors = {"body.0.bias", "body.1.weight", "body.1.bias"}
    undecayed = (
        [("embedding", {"token"}), ("vector", vectors)] if by_role else [("embedding, vector", vectors | {"token"})]
    )
    groups = build_param_groups(network, phase)
    assert [(group.role, set(group.names), group.weight_decay) for group in groups] == [
        ("matrix", {"body.0.weight"}, 0.1),
        *((role, names, 0.0) for role, names in undecayed),
        ("head", {"fc.weight"}, 0.1),
        ("vector", {"fc.bias"}, 0.0),
    ]


def undecayed(module: torch.nn.Module, kind: str) -> set[str]:
    return {name for name, rule in decay_rules(module).items() if not rule.decays and rule.reason == kind}


def test_efficientnet_norms_are_found_by_type_where_their_names_say_nothing() -> None:
    with torch.device("meta"):
        module = models.efficientnet_b0()
    norms = undecayed(module, "norm layer")
    # 49 BatchNorms with a scale and a bias each; the usual rule by name finds none of the scales.
    assert len(norms) == 98
    assert {"features.0.1.weight", "features.0.1.bias", "features.8.1.weight"} <= norms
    rules = decay_rules(module)
    assert rules["features.1.0.block.0.0.weight"].decays  # depthwise convolution
    assert rules["classifier.1.weight"].decays
    # The 16 squeeze-and-excitation blocks have two convolutions with a bias, and the classifier has one.
    assert len(undecayed(module, "bias")) == 33
    assert sum(rule.decays for rule in rules.values()) == len(rules) - 98 - 33


def test_vit_tokens_embeddings_and_packed_biases_do_not_decay() -> None:
    with torch.device("meta"):
        module = models.vit_b_16()
    rules = decay_rules(module)
    assert len(undecayed(module, "norm layer")) == 50  # 25 LayerNorms
    assert undecayed(module, "token or embedding") == {"class_token", "encoder.pos_embedding"}
    biases = undecayed(module, "bias")
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_bias" in biases
    decayed = {name for name, rule in rules.items() if rule.decays}
    # Patch projection, head, and in each of the 12 layers: in_proj, out_proj and the two linear layers.
    assert len(decayed) == 2 + 12 * 4
    assert {"conv_proj.weight", "heads.head.weight"} <= decayed


def test_layer_scale_and_relative_position_tables_do_not_decay_whatever_their_shape() -> None:
    with torch.device("meta"):
        convnext, swin = models.convnext_tiny(), models.swin_t()
    assert len(undecayed(convnext, "layer scale")) == 18
    tables = undecayed(swin, "token or embedding")
    assert len(tables) == 12
    assert all(name.endswith("relative_position_bias_table") for name in tables)


@pytest.mark.parametrize(
    ("name", "reason", "expected"),
    [
        ("nf_resnet26", "one-dimensional", {"gain"}),  # of weight-standardised convolutions: (C, 1, 1, 1)
        ("halonet26t", "token or embedding", {"height_rel", "width_rel"}),
        ("lambda_resnet26rpt_256", "token or embedding", {"pos_emb"}),
        ("efficientvim_m1", "layer scale", {"alpha"}),  # four scales per channel: (4, C)
        ("hiera_small_abswin_256", "token or embedding", {"pos_embed", "pos_embed_win"}),
        ("naflexvit_base_patch16_parfac_gap", "token or embedding", {"pos_embed_x", "pos_embed_y", "reg_token"}),
    ],
)
def test_scales_and_position_tables_of_timm_do_not_decay(name: str, reason: str, expected: set[str]) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
    rules = decay_rules(module)
    assert expected <= {parameter.rpartition(".")[2] for parameter, rule in rules.items() if rule.reason == reason}
    assert {parameter.rpartition(".")[2] for parameter, rule in rules.items() if rule.decays} == {"weight"}


def test_vectors_that_look_like_matrices_do_not_decay() -> None:
    """ResMLP scales by alpha of shape (1, 1, C); Visformer numbers its positional embeddings."""
    module = nn.Module()
    module.alpha = nn.Parameter(torch.zeros(1, 1, 8))
    module.pos_embed1 = nn.Parameter(torch.zeros(1, 8, 4, 4))
    module.single = nn.Linear(8, 1)
    module.mixing = nn.Parameter(torch.zeros(8, 8))
    rules = decay_rules(module)
    assert {name: (rule.decays, rule.reason) for name, rule in rules.items()} == {
        "alpha": (False, "layer scale"),
        "pos_embed1": (False, "token or embedding"),
        "single.weight": (True, "weight matrix"),
        "single.bias": (False, "bias"),
        "mixing": (True, "weight matrix"),
    }


def test_the_role_goes_by_the_layer_and_the_shape() -> None:
    module = nn.ModuleDict({"table": nn.Embedding(4, 8), "kernel": nn.Conv2d(3, 8, 3), "norm": nn.LayerNorm(8)})
    roles = {name: (rule.decays, rule.role(in_head=False)) for name, rule in decay_rules(module).items()}
    assert roles == {
        "table.weight": (True, "embedding"),
        "kernel.weight": (True, "matrix"),
        "kernel.bias": (False, "vector"),
        "norm.weight": (False, "vector"),
        "norm.bias": (False, "vector"),
    }
    assert decay_rules(module)["kernel.weight"].role(in_head=True) == "head"
    assert decay_rules(module)["norm.weight"].role(in_head=True) == "vector"
