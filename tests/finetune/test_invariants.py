"""A frozen buffer that changes is an error that names the layer."""

from __future__ import annotations

import pytest
import torch
from conftest import make_phase

from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.invariants import BufferDriftError, FrozenBuffers
from ftexp.models.blocks import Network


@pytest.mark.parametrize(
    ("learning", "policy"), [(("head",), "train"), (("body", "head"), "train"), (("stem", "body", "head"), "eval")]
)
def test_a_valid_phase_passes(network: Network, learning: tuple[str, ...], policy: str) -> None:
    phase = make_phase(*learning, policy=policy)
    open_blocks(network, phase)
    buffers = FrozenBuffers(network, phase)
    set_train_mode(network, phase)
    network.module(torch.randn(8, 3, 8, 8) * 3 + 1)
    buffers.check()


def test_a_frozen_block_in_training_mode_is_noticed(network: Network) -> None:
    phase = make_phase("body", "head")
    buffers = FrozenBuffers(network, phase)
    network.module.train()  # the frozen stem too: a common mistake
    network.module(torch.randn(8, 3, 8, 8) * 3 + 1)
    with pytest.raises(
        BufferDriftError, match=r"running_mean of the layer stem\.1 in block stem changed .*, and 2 more buffers"
    ):
        buffers.check()


def test_statistics_that_the_policy_keeps_are_watched_in_open_blocks(network: Network) -> None:
    phase = make_phase("stem", "body", "head", policy="eval")
    buffers = FrozenBuffers(network, phase)
    network.module.body[1].running_var[2] += 1e-6
    with pytest.raises(BufferDriftError, match=r"running_var of the layer body\.1 in block body changed in phase"):
        buffers.check()
    network.module.body[1].running_var[2] -= 1e-6
    network.module.stem[1].running_mean.fill_(float("nan"))
    nan = FrozenBuffers(network, phase)
    nan.check()
