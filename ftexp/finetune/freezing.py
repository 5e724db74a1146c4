"""Frozen is frozen: no gradient, eval mode, running statistics untouched."""

from __future__ import annotations

from ftexp.finetune.batchnorm import apply_affine_policy, apply_statistics_policy
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


def open_blocks(network: Network, phase: Phase) -> None:
    """Let exactly the phase's blocks have gradients; to be called once per phase, before the optimizer is built."""
    for block in network.names:
        for parameter in network.parameters(block).values():
            parameter.requires_grad_(block in phase.learning)
    for block in phase.learning:
        for module in network.modules(block):
            apply_affine_policy(module, phase.bn_policy)


def set_train_mode(network: Network, phase: Phase) -> None:
    """Training mode for the learning blocks, eval mode for the frozen ones, BatchNorm as the phase's policy says.

    Eval mode also switches off the dropout and the stochastic depth of the frozen blocks. To be called before
    every epoch, because evaluation leaves everything in eval mode.
    """
    network.module.train()
    for block in network.names:
        for module in network.modules(block):
            if block in phase.learning:
                apply_statistics_policy(module, phase.bn_policy)
            else:
                module.eval()
