"""The BatchNorm policy: two switches, set as flags on the layers and never by swapping them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import BatchNormPolicyConfig
from ftexp.errors import DeviceError
from ftexp.finetune.frozen_modules import frozen_modules
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Every BatchNorm layer of any dimension below ``module``: synchronised, lazy and timm's fused ones too."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def apply_statistics_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> None:
    """Put the BatchNorm layers below ``module`` into eval mode if the policy keeps their running statistics.

    ``module.train()`` undoes this, so it has to follow every such call.
    """
    if policy.update_running_statistics:
        return
    for layer in batch_norms(module):
        layer.eval()


def moving_batch_norms(network: Network, phase: Phase) -> Iterator[_BatchNorm]:
    """The BatchNorm layers that take their statistics from the phase's training batches, in the order of the blocks."""
    if not phase.bn_policy.update_running_statistics:
        return
    kept = {layer for module in frozen_modules(network, phase) for layer in batch_norms(module)}
    for block in phase.learning:
        for module in network.modules(block):
            yield from (layer for layer in batch_norms(module) if layer not in kept)


def takes_batch_statistics(network: Network, phase: Phase) -> bool:
    """Whether any BatchNorm layer takes its statistics from the phase's training batches."""
    return any(True for _ in moving_batch_norms(network, phase))


def synchronise_statistics(module: nn.Module, device: torch.device) -> nn.Module:
    """Let the BatchNorm layers in training take their statistics over the batches of all ranks.

    Layers are exchanged for torch's SyncBatchNorm or timm's; names and tensors stay as they are.

    Raises:
        DeviceError: on the CPU, where torch has no such layer.
    """
    if not any(batch_norms(module)):
        return module
    if device.type != "cuda":
        raise DeviceError(
            f"bn_policy.update_running_statistics=true under torchrun needs CUDA, this run is on {device}: each "
            "process would have statistics of its own. Take bn_policy=eval, or one process."
        )
    converted: nn.Module = convert_sync_batchnorm(module)
    return converted


def describe_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> str:
    """One phrase for the log: what the policy does to this network, and where it has nothing to do."""
    number = sum(1 for _ in batch_norms(module))
    if number == 0:
        return "no BatchNorm: bn_policy has no effect"
    statistics = "updated" if policy.update_running_statistics else "kept"
    affine = "trained" if policy.train_affine_parameters else "frozen"
    return f"{number} BatchNorms: statistics {statistics}, scale and bias {affine} where their block learns"
