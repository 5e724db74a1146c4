"""Frozen is frozen: no gradient, eval mode, running statistics untouched."""

from __future__ import annotations

from torch import nn

from ftexp.finetune.batchnorm import apply_statistics_policy, batch_norms
from ftexp.finetune.frozen_modules import frozen_modules
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


def trainable_parameters(network: Network, phase: Phase) -> dict[str, nn.Parameter]:
    """What a phase trains, by full names: what it chooses, but for scale and bias that its BatchNorm policy freezes."""
    fixed: set[nn.Parameter] = set()
    if not phase.bn_policy.train_affine_parameters:
        fixed = {parameter for layer in batch_norms(network.module) for parameter in layer.parameters()}
    return {
        name: parameter
        for block in phase.learning
        for name, parameter in network.parameters(block).items()
        if phase.learns(block, name) and parameter not in fixed
    }


def open_blocks(network: Network, phase: Phase) -> None:
    """Let exactly what the phase trains have gradients; to be called once per phase, before the optimizer is built."""
    trainable = set(trainable_parameters(network, phase).values())
    for parameter in network.module.parameters():
        parameter.requires_grad_(parameter in trainable)


def set_train_mode(network: Network, phase: Phase) -> None:
    """Training mode for what learns, eval mode for what is frozen, BatchNorm as the phase's policy says.

    Eval mode also switches off the dropout and the stochastic depth of frozen blocks and modules. To be called before
    every epoch, because evaluation leaves everything in eval mode.
    """
    network.module.train()
    for block in phase.learning:
        for module in network.modules(block):
            apply_statistics_policy(module, phase.bn_policy)
    for module in frozen_modules(network, phase):
        module.eval()
