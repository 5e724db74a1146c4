"""Frozen tensors and buffers stay bit-equal through real steps, open ones move, BatchNorm as the policy says."""

from __future__ import annotations

import pytest
import torch
from conftest import make_phase
from tiny_runs import changed_after_two_steps

from ftexp.finetune.batchnorm import batch_norms, describe_policy
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.models.blocks import Network

POLICIES = ["train", "freeze_affine", "eval", "frozen"]  # code that is often seen freezes statistics and affine


BODY_WEIGHTS = {"body.0.weight", "body.0.bias", "token"}
BODY_AFFINE = {"body.1.weight", "body.1.bias"}
BODY_STATISTICS = {"body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"}
HEAD = {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("policy", "moved"),
    [
        ("train", HEAD | BODY_WEIGHTS | BODY_AFFINE | BODY_STATISTICS),
        ("freeze_affine", HEAD | BODY_WEIGHTS | BODY_STATISTICS),
        ("eval", HEAD | BODY_WEIGHTS | BODY_AFFINE),
        ("frozen", HEAD | BODY_WEIGHTS),
    ],
)
def test_exactly_the_open_tensors_move_in_the_last_block(network: Network, policy: str, moved: set[str]) -> None:
    assert changed_after_two_steps(network, make_phase("body", "head", policy=policy)) == moved


@pytest.mark.parametrize("policy", POLICIES)
def test_a_frozen_backbone_does_not_drift_under_any_policy(network: Network, policy: str) -> None:
    assert changed_after_two_steps(network, make_phase("head", policy=policy)) == HEAD


def test_full_moves_everything(network: Network) -> None:
    everything = set(network.module.state_dict())
    assert changed_after_two_steps(network, make_phase(*network.names)) == everything


def test_a_later_phase_opens_what_an_earlier_policy_closed(network: Network) -> None:
    open_blocks(network, make_phase("body", "head", policy="frozen"))
    assert not network.module.body[1].weight.requires_grad
    open_blocks(network, make_phase(*network.names))
    assert all(p.requires_grad for p in network.module.parameters())


def test_dropout_of_a_frozen_block_is_off_and_of_a_learning_one_on(network: Network) -> None:
    set_train_mode(network, make_phase("head"))
    assert not network.module.body[3].training
    set_train_mode(network, make_phase("body", "head", policy="eval"))
    assert network.module.body[3].training
    assert not network.module.body[1].training


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.BatchNorm1d(2),
        torch.nn.BatchNorm2d(2),
        torch.nn.BatchNorm3d(2),
        torch.nn.SyncBatchNorm(2),
        torch.nn.LazyBatchNorm2d(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_kind_of_batchnorm_is_one(layer: torch.nn.Module) -> None:
    assert list(batch_norms(torch.nn.Sequential(layer))) == [layer]
    assert not list(batch_norms(torch.nn.Sequential(torch.nn.LayerNorm(2), torch.nn.GroupNorm(1, 2))))


def test_the_log_says_what_the_policy_does_and_where_it_has_nothing_to_do(network: Network) -> None:
    keep = make_phase("head", policy="eval").bn_policy
    assert describe_policy(network.module, keep) == (
        "2 BatchNorms: statistics kept, scale and bias trained where their block learns"
    )
    assert describe_policy(network.module.fc, keep) == "no BatchNorm: bn_policy has no effect"
