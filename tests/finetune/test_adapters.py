"""LoRA: the merged weights, the layers that get adapters, and the settings that are refused."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from conftest import Compose
from torch import nn

from ftexp.errors import ConfigError
from ftexp.finetune.adapters import Lora, LowRank, prepared
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.finetune.schedules import Span
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_skeleton
from ftexp.models.parametrized import plain_state
from ftexp.report.plan import plan_rows

TINY = ("stage=lora", "stage.rank=2", "stage.alpha=6")
LAYERS = ("stem.0", "body.0")


def plan(configure: Compose, network: Network, *overrides: str) -> Phase:
    (phase,) = plan_phases(configure(*TINY, *overrides), network.names, network)
    return phase


def set_adapters(network: Network) -> dict[str, torch.Tensor]:
    """Put random numbers into the adapters; the weights as they have to be then, calculated here."""
    torch.manual_seed(1)
    expected = {}
    for path in LAYERS:
        inner = network.module.get_submodule(path).parametrizations["weight"]
        nn.init.normal_(inner[0].up)
        merged = inner.original.flatten(1) + 6 / 2 * torch.einsum("or,ri->oi", inner[0].up, inner[0].down)
        expected[f"{path}.weight"] = merged.reshape(inner.original.shape).detach()
    return expected


def train(network: Network, phase: Phase) -> None:
    optimizer = build_optimizer(phase.optimizer, build_param_groups(network, phase), torch.device("cpu"))
    for _ in range(2):
        set_train_mode(network, phase)
        logits = network.module(torch.randn(8, 3, 8, 8) * 3 + 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.arange(8) % 4).backward()
        optimizer.step()


def test_a_weight_with_an_adapter_calculated_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    adapter = LowRank(weight, 1, 3.0, torch.Generator().manual_seed(0))
    assert torch.equal(adapter(weight), weight)
    assert adapter.down.abs().max() <= 1 / 3**0.5  # as torch initialises a linear layer of three inputs
    adapter.down.data = torch.tensor([[1.0, 0.0, -2.0]])
    adapter.up.data = torch.tensor([[10.0], [100.0]])
    assert adapter(weight).tolist() == [[31.0, 2.0, -57.0], [304.0, 5.0, -594.0]]
    with torch.autocast("cpu", torch.bfloat16):
        assert adapter(weight).tolist() == [[31.0, 2.0, -57.0], [304.0, 5.0, -594.0]]
        adapter.up.data = torch.tensor([[1 + 2**-12], [0.0]])  # more digits than bfloat16 has
        assert adapter(weight)[0, 0] == 4 + 3 * 2**-12


def test_the_first_output_is_the_networks_and_the_merged_weights_give_what_the_adapters_gave(
    configure: Compose, network: Network
) -> None:
    module, images = network.module.eval(), torch.randn(2, 3, 8, 8)
    before, plain = module(images), copy.deepcopy(network.module)
    with prepared(network, plan(configure, network).change):
        assert torch.equal(module(images), before)
        expected = set_adapters(network)
        state = plain_state(module)
        for name, weight in expected.items():
            torch.testing.assert_close(state[name], weight)
        adapted = module(images)
        assert not torch.equal(adapted, before)
    plain.load_state_dict(state)
    assert torch.equal(plain(images), adapted)
    assert torch.equal(module(images), before)


def test_adapters_and_head_learn_and_nothing_else_does(configure: Compose, network: Network) -> None:
    phase = plan(configure, network, "bn_policy=train", "optimizer.block_lrs.stem=1e-5")
    before = copy.deepcopy(network.module.state_dict())
    with prepared(network, phase.change):
        open_blocks(network, phase)
        opened = {name: p.numel() for name, p in network.module.named_parameters() if p.requires_grad}
        groups = build_param_groups(network, phase)
        train(network, phase)
        merged = plain_state(network.module)
        rates = {group.block: group.lr for group in groups}
        adapters = [group for group in groups if group.block != HEAD]
        assert {group.role for group in adapters} == {"matrix"}
        assert all(group.weight_decay > 0 for group in adapters)
    # Kernels [4, 3 * 9] and [6, 4 * 9], each with two rows and two columns beside it; the head is 6 * 4 + 4.
    assert sum(opened.values()) == 2 * (4 + 27) + 2 * (6 + 36) + 28
    assert plan_rows([phase], network, [Span(1, 1, 8)])[0] | {"epochs": 0} == {
        "phase": "lora", "learns": "adapters of stem, body, head", "parameters": sum(opened.values()), "epochs": 0,
        "steps": 1, "lr head": 1e-3, "lr backbone, highest": 5e-4, "lowest": 1e-5,
    }  # fmt: skip
    assert rates == {"stem": 1e-5, "body": 5e-4, HEAD: 1e-3}
    after = network.module.state_dict()
    head = {"fc.weight", "fc.bias"}
    assert {name for name in before if not torch.equal(before[name], after[name])} == head
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    assert moved == head | {f"{path}.weight" for path in LAYERS}


def test_adapters_of_rank_1_are_matrices_that_decay_too(configure: Compose, network: Network) -> None:
    phase = plan(configure, network, "stage.rank=1")
    with prepared(network, phase.change):
        open_blocks(network, phase)
        groups = build_param_groups(network, phase)
    adapters = [(group.block, group.role, len(group.names)) for group in groups if group.block != HEAD]
    assert adapters == [("stem", "matrix", 2), ("body", "matrix", 2)]
    assert all(group.weight_decay > 0 for group in groups if group.block != HEAD)


def test_a_change_is_the_same_every_time_and_undone_after_an_error_too(configure: Compose, network: Network) -> None:
    phase, names = plan(configure, network), list(network.module.state_dict())
    drawn = []

    def fail() -> None:
        with prepared(network, phase.change):
            drawn.append(network.module.body[0].parametrizations["weight"][0].down.detach().clone())
            raise KeyboardInterrupt

    for _ in range(2):
        torch.randn(3)
        with pytest.raises(KeyboardInterrupt):
            fail()
        assert list(network.module.state_dict()) == names
    assert torch.equal(*drawn)
    assert isinstance(phase.change, Lora)
    with prepared(network, replace(phase.change, seed=1)):
        assert not torch.equal(network.module.body[0].parametrizations["weight"][0].down, drawn[0])


# ViT-B/16: patches [768, 3 * 16 * 16]; in each of 12 blocks queries, keys and values [3 * 768, 768], which torchvision
# has outside of linear layers, projection [768, 768], MLP [4 * 768, 768] and [768, 4 * 768]. ViT-Tiny likewise, 192
# wide. ResNet-18's stem is [64, 3 * 49]. EfficientNet-Lite0's first stage has a depthwise kernel and one of [16, 32],
# for which rank 11 is too much; the second one has [96, 16], [24, 96], [144, 24] and [24, 144].
@pytest.mark.parametrize(
    ("option", "overrides", "number"),
    [
        ("model=vit_b_16", (), 8 * (2 * 768 + 12 * (4 * 768 + 2 * 768 + 2 * 5 * 768))),
        ("model=resnet18", ("stage.blocks=[stem]",), 8 * (64 + 3 * 49)),
        ("model=efficientnet_lite0", ("stage.blocks=[stage1]",), 8 * (16 + 32)),
        (
            "model=efficientnet_lite0",
            ("stage.blocks=[stage1,stage2]", "stage.rank=11"),
            11 * (96 + 16 + 2 * (24 + 144) + 24 + 96),
        ),
        ("vit_tiny_patch16_224", ("stage.patterns=[*.attn.*,-*]",), 8 * 12 * (4 * 192 + 2 * 192)),
    ],
)
def test_the_number_of_parameters_that_adapters_have(
    configure: Compose, option: str, overrides: tuple[str, ...], number: int
) -> None:
    model = [option] if "=" in option else ["model=timm", f"model.name={option}"]
    config = configure("stage=lora", *model, *overrides)
    network = build_skeleton(config.model, num_classes=10)
    (phase,) = plan_phases(config, network.names, network)
    assert isinstance(phase.change, Lora)
    assert list(phase.change.weights) == sorted(phase.change.weights)  # the same adapters for each in every process
    with prepared(network, phase.change):
        open_blocks(network, phase)
        opened = {name: p.numel() for name, p in network.module.named_parameters() if p.requires_grad}
        for name in network.parameters(HEAD):
            opened.pop(name)
    assert sum(opened.values()) == number


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stage.rank=100"],
            "stage.phases (lora): the network has no weight for learn=lora, which is for linear layers and ungrouped "
            "convolutions that are larger than adapters of rank 100 would be. Use a lower stage.rank, other",
        ),
        (
            ["stage.patterns=[body.1.weight,-*]"],
            "body.1.weight matches no weight below the head, which is always trainable. Adapters are for linear layers "
            "and ungrouped convolutions that are larger than adapters of rank 2 would be. The nearest names: body.0.",
        ),
        (["stage.patterns=[body.*]"], "1 of the 2 weights below the head match no pattern: stem.0.weight. End the"),
        (["stage.patterns=[-*]"], "Phase lora: learn=lora chooses no parameter of tiny in the blocks stem, body."),
        (
            ["train.l2_sp=0.1"],
            "train.l2_sp=0.1 cannot be combined with learn=lora (phase lora): the weights are frozen",
        ),
        (["stage.patterns=[body.*,-*]", "optimizer.block_lrs.stem=1e-4"], "stem is frozen in every phase"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_impossible_settings_are_refused(
    configure: Compose, network: Network, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(configure, network, *overrides)
    assert message in str(refused.value)
