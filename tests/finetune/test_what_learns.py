"""Norms, biases and patterns: what they choose, what is refused, what is frozen beside them."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from conftest import Compose
from tiny_runs import changed_after_two_steps

from ftexp.config.stage import LEARN, Learn
from ftexp.errors import ConfigError
from ftexp.finetune.batchnorm import takes_batch_statistics
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.invariants import BufferDriftError, FrozenBuffers
from ftexp.finetune.param_groups import build_param_groups, group_table
from ftexp.finetune.phases import Phase, deepest, plan_phases
from ftexp.finetune.schedules import Span
from ftexp.finetune.what_learns import RULES
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_skeleton
from ftexp.preparation.prepare import plan as plan_run
from ftexp.report.plan import plan_rows
from ftexp.training.ema import build_ema

FC = {"fc.weight", "fc.bias"}


def plan(configure: Compose, network: Network, *overrides: str) -> tuple[Phase, ...]:
    return plan_phases(configure(*overrides), network.names, network)


STATISTICS = {
    f"{layer}.{name}"
    for layer in ("stem.1", "body.1")
    for name in ("running_mean", "running_var", "num_batches_tracked")
}
BODY_STATISTICS = {name for name in STATISTICS if name.startswith("body")}


NORMS = {"stem.1.weight", "stem.1.bias", "body.1.weight", "body.1.bias"}
BIASES = {"stem.1.bias", "body.0.bias", "body.1.bias"}


def patterns(*each: str) -> list[str]:
    return ["stage=patterns", f"stage.patterns=[{','.join(each)}]"]


@pytest.mark.parametrize(
    ("overrides", "learning", "moved"),
    [
        (["stage=norms"], "stem body head", NORMS),
        (["stage=norms", "bn_policy=train"], "stem body head", NORMS | STATISTICS),
        (["stage=norms", "stage.last_blocks=1"], "body head", {"body.1.weight", "body.1.bias"}),
        (["stage=norms", "stage.blocks=[stem]"], "stem head", {"stem.1.weight", "stem.1.bias"}),
        (["stage=bias"], "stem body head", BIASES),
        (["stage=bias", "bn_policy=train"], "stem body head", BIASES | STATISTICS),
        # Nothing in the stem learns then, so its statistics do not move either.
        (["stage=bias", "bn_policy=freeze_affine"], "body head", {"body.0.bias"} | BODY_STATISTICS),
        (patterns("token", "-*"), "body head", {"token"}),
        # The block's BatchNorm is frozen by the patterns, so it keeps its statistics whatever the policy says.
        ([*patterns("body.0.*", "-*"), "bn_policy=train"], "body head", {"body.0.weight", "body.0.bias"}),
        (patterns("-*.0.weight", "*.?.*", "-*"), "stem body head", NORMS | BIASES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_after_training_exactly_the_chosen_tensors_differ(
    configure: Compose, network: Network, overrides: list[str], learning: str, moved: set[str]
) -> None:
    (phase,) = plan(configure, network, *overrides)
    assert phase.learning == tuple(learning.split())
    buffers = FrozenBuffers(network, phase)
    assert changed_after_two_steps(network, phase) == moved | FC
    buffers.check()
    rows = group_table(network, build_param_groups(network, phase))
    opened = {n: p.numel() for n, p in network.module.named_parameters() if n in moved | FC}
    assert sum(int(str(row["parameters"])) for row in rows if row["trainable"]) == sum(opened.values())
    assert sum(int(str(row["tensors"])) for row in rows) == len(list(network.module.parameters()))
    assert plan_rows([phase], network, [Span(1, 1, 8)])[0]["parameters"] == sum(opened.values())
    averaged = build_ema(network, phase, 0.9).averages()
    assert len(averaged) == len({n for n in moved | FC if not n.endswith("num_batches_tracked")})


# ResNet-18 has 20 BatchNorms of 64 + 4 * 64 + 5 * (128 + 256 + 512) = 4800 channels, and no bias in its convolutions.
# ViT-Tiny has 25 LayerNorms of 192. Its biases: of the patches 192; in each of 12 blocks those of two norms, 3 * 192 of
# queries, keys and values, 192 of the projection, 768 + 192 of the MLP; 192 of the last norm.
# BEiT has biases of queries and values, none of keys. Sequencer has 4 blocks of C = 192 and 14 of C = 384, each with
# two bidirectional LSTMs of C / 4 (16 * C / 4 each), a projection C, two norms 2 * C and an MLP 3 * C + C;
# patches of 192, three times 384 between stages, a last norm of 384.
@pytest.mark.parametrize(
    ("model", "stage", "tensors", "number"),
    [
        ("resnet18", "norms", 40, 2 * 4800),
        ("resnet18", "bias", 20, 4800),
        ("vit_tiny_patch16_224", "norms", 50, 2 * 25 * 192),
        ("vit_tiny_patch16_224", "bias", 1 + 12 * 6 + 1, 192 + 12 * (2 * 192 + 3 * 192 + 192 + 768 + 192) + 192),
        ("beit_base_patch16_224", "bias", 1 + 12 * 7 + 1, 768 + 12 * (2 * 768 + 2 * 768 + 768 + 3072 + 768) + 768),
        ("sequencer2d_s", "bias", 1 + 18 * 13 + 3 + 1, 192 + 15 * (4 * 192 + 14 * 384) + 3 * 384 + 384),
    ],
)
def test_the_number_of_parameters_that_a_rule_chooses_below_the_head(
    configure: Compose, model: str, stage: str, tensors: int, number: int
) -> None:
    option = ["model=resnet18"] if model == "resnet18" else ["model=timm", f"model.name={model}"]
    config = configure(f"stage={stage}", *option)
    network = build_skeleton(config.model, num_classes=10)
    (phase,) = plan_run(config)
    open_blocks(network, phase)
    opened = {name: p.numel() for name, p in network.module.named_parameters() if p.requires_grad}
    for name in network.parameters(HEAD):
        del opened[name]  # all of the head learns
    assert (len(opened), sum(opened.values())) == (tensors, number)


def test_a_network_without_normalisation_layers_has_no_norms_to_train(configure: Compose) -> None:
    config = configure("stage=norms", "model=timm", "model.name=dm_nfnet_f0")
    network = build_skeleton(config.model, num_classes=2)
    with pytest.raises(ConfigError, match=r"learn=norms chooses no parameter of dm_nfnet_f0 in the blocks stem, .*"):
        plan_phases(config, network.names, network)


def test_modules_without_a_learning_parameter_are_in_eval_mode_within_a_learning_block(
    configure: Compose, network: Network
) -> None:
    convolution, norm, _, dropout = network.module.body
    (phase,) = plan(configure, network, "stage=norms", "stage.last_blocks=1")
    set_train_mode(network, phase)
    assert [network.module.body.training, dropout.training] == [True, True]
    assert [convolution.training, norm.training] == [False, False]  # frozen; kept by bn_policy=eval
    (phase,) = plan(configure, network, *patterns("token", "-*"), "bn_policy=train")
    set_train_mode(network, phase)
    assert not any(module.training for module in network.module.body.modules())
    assert network.module.fc.training
    assert not takes_batch_statistics(network, phase)


def test_the_statistics_of_a_frozen_layer_in_a_learning_block_are_watched(configure: Compose, network: Network) -> None:
    (phase,) = plan(configure, network, *patterns("body.0.*", "-*"), "bn_policy=train")
    buffers = FrozenBuffers(network, phase)
    network.module.body[1].running_mean += 1
    with pytest.raises(
        BufferDriftError, match=r"running_mean of the layer body\.1 in block body changed in phase patterns"
    ):
        buffers.check()


def test_a_buffer_of_a_frozen_module_in_a_learning_block_is_watched(configure: Compose, network: Network) -> None:
    network.module.body[0].register_buffer("count", torch.zeros(1))
    (phase,) = plan(configure, network, *patterns("body.1.*", "-*"))
    buffers = FrozenBuffers(network, phase)
    network.module.body[0].count += 1
    with pytest.raises(BufferDriftError, match=r"count of the layer body\.0 in block body changed in phase patterns"):
        buffers.check()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            patterns("body.2.*", "-*"),
            "body.2.* matches no parameter below the head, which is always trainable. The nearest names: "
            "body.0.weight, body.0.bias, body.1.weight.",
        ),
        (patterns("stem", "-*"), "stem matches no parameter below the head"),  # a whole name has to match
        (patterns("fc.*", "-*"), "fc.* matches no parameter below the head, which is always trainable"),
        (patterns("*.bias", "-body.1.bias", "-*"), "-body.1.bias has no effect: earlier patterns match"),
        (
            patterns("*.bias", "-stem.*"),
            "3 of the 8 parameters below the head match no pattern: token, body.0.weight, body.1.weight. End the list "
            "with -* to freeze them",
        ),
        (patterns("-*"), "learn=patterns chooses no parameter of tiny in the blocks stem, body. Choose others"),
        (["stage=norms", "bn_policy=freeze_affine"], "bn_policy.train_affine_parameters=false freezes these"),
        (["stage=norms", "stage.blocks=[bdy]"], "the network has no block bdy. Did you mean 'body'?"),
        (["stage=norms", "stage.last_blocks=3"], "the network has 2 blocks before its head"),
        (["stage=norms", "stage.last_blocks=1", "optimizer.block_lrs.stem=1e-4"], "stem is frozen in every phase"),
        (
            ["stage.last_blocks=null", "stage.phases=[{name: a, learn: norms, epochs: 1},"
             "{name: b, learn: biases, blocks: [stem], epochs: 1}]"],
            "Phase b unfreezes nothing new: a already trains norms of stem, body, head",
        ),
        (
            ["stage.last_blocks=null", "stage.phases=[{name: a, learn: all, epochs: 1},"
             "{name: b, learn: biases, epochs: 1}]"],
            "Phase b unfreezes nothing new: a already trains stem, body, head",
        ),
        (["stage=norms", "train.l2_sp=0.1"], "train.l2_sp=0.1 has no effect: it pulls the weight matrices below the"),
        (["stage=bias", "train.l2_sp=0.1"], "no phase trains any of them. Use train.l2_sp=null"),
        ([*patterns("*.bias", "token", "-*"), "train.l2_sp=0.1"], "train.l2_sp=0.1 has no effect"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_impossible_settings_are_refused(
    configure: Compose, network: Network, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(configure, network, *overrides)
    assert message in str(refused.value)


def test_l2_sp_is_possible_where_one_phase_trains_a_weight_that_decays(configure: Compose, network: Network) -> None:
    plan(configure, network, *patterns("body.0.weight", "-*"), "train.l2_sp=0.1")
    given = "{name: norms, learn: norms, epochs: 1},{name: all, learn: all, epochs: 1}"
    plan(configure, network, "stage.last_blocks=null", f"stage.phases=[{given}]", "train.l2_sp=0.1")
    plan(configure, network, "stage=norms", "train.wise_ft=[0.5]")


def test_a_later_phase_may_open_the_whole_of_a_block(configure: Compose, network: Network) -> None:
    rules = ("norms", "biases", "all")
    given = ",".join(f"{{name: {rule}, learn: {rule}, epochs: 1}}" for rule in rules)
    phases = plan(configure, network, "stage.last_blocks=null", f"stage.phases=[{given}]")
    rows = plan_rows(phases, network, [Span(1, 1, 8)] * 3)
    assert [row["learns"] for row in rows] == [
        "norms of stem, body, head",
        "biases of stem, body, head",
        "stem, body, head",
    ]
    # Norms: 2 * (4 + 6); biases: 4 + 6 + 6; the head 6 * 4 + 4; all: convolutions 4 * 27 and 6 * 36 + 6, the token 6.
    assert [row["parameters"] for row in rows] == [20 + 28, 16 + 28, 20 + 28 + 108 + 222 + 6]
    assert deepest(phases) is phases[2]
    assert deepest(phases[:2]) is phases[0]


def test_every_kind_of_learning_has_its_keys_and_a_rule_where_it_is_finer_than_a_block() -> None:
    assert set(get_args(Learn)) == set(LEARN)
    assert set(RULES) == set(LEARN) - {"head", "last", "blocks", "all"}
