"""Freezes and unfreezes parts of a network: gradients, modes and running statistics."""

from __future__ import annotations

from torch import nn

from ftexp.finetune.batchnorm import apply_statistics_policy, batch_norms
from ftexp.finetune.frozen_modules import frozen_modules
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


def trainable_parameters(network: Network, phase: Phase) -> dict[str, nn.Parameter]:
    """The parameters that a phase trains, by full name, without the scale and bias that its bn_policy freezes."""
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
    """Set ``requires_grad`` for exactly what a phase trains; call it once per phase, before building the optimizer."""
    trainable = set(trainable_parameters(network, phase).values())
    for parameter in network.module.parameters():
        parameter.requires_grad_(parameter in trainable)


def set_train_mode(network: Network, phase: Phase) -> None:
    """Put trainable modules into training mode, frozen ones into eval mode, and BatchNorm as bn_policy says.

    Eval mode also switches off dropout and stochastic depth in frozen blocks and modules. Call this before every
    epoch, because evaluation leaves all modules in eval mode.
    """
    network.module.train()
    for block in phase.learning:
        for module in network.modules(block):
            apply_statistics_policy(module, phase.bn_policy)
    for module in frozen_modules(network, phase):
        module.eval()
