"""The BatchNorm policy: whether running statistics are updated, and whether scale and bias are trainable."""

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
    """Every BatchNorm layer in ``module``, including 1d, 3d, SyncBatchNorm, lazy and timm's fused ones."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def apply_statistics_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> None:
    """Put the BatchNorm layers in ``module`` into eval mode if the policy does not update their running statistics.

    Call this after every ``module.train()``, which undoes it.
    """
    if policy.update_running_statistics:
        return
    for layer in batch_norms(module):
        layer.eval()


def moving_batch_norms(network: Network, phase: Phase) -> Iterator[_BatchNorm]:
    """The BatchNorm layers that normalise with the statistics of training batches, in the order of the blocks."""
    if not phase.bn_policy.update_running_statistics:
        return
    kept = {layer for module in frozen_modules(network, phase) for layer in batch_norms(module)}
    for block in phase.learning:
        for module in network.modules(block):
            yield from (layer for layer in batch_norms(module) if layer not in kept)


def takes_batch_statistics(network: Network, phase: Phase) -> bool:
    """Whether any BatchNorm layer normalises with the statistics of the phase's training batches."""
    return any(True for _ in moving_batch_norms(network, phase))


def synchronise_statistics(module: nn.Module, device: torch.device) -> nn.Module:
    """Convert the BatchNorm layers to torch's or timm's SyncBatchNorm, with statistics over all ranks.

    Names and tensors stay the same.

    Raises:
        DeviceError: on the CPU, where torch has no SyncBatchNorm.
    """
    if not any(batch_norms(module)):
        return module
    if device.type != "cuda":
        raise DeviceError(
            f"bn_policy.update_running_statistics=true under torchrun needs CUDA, and this run is on {device}, where "
            "torch cannot synchronise the statistics of the processes. Use bn_policy=eval, or one process."
        )
    converted: nn.Module = convert_sync_batchnorm(module)
    return converted


def describe_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> str:
    """A phrase for the log: what the policy does to this network."""
    number = sum(1 for _ in batch_norms(module))
    if number == 0:
        return "no BatchNorm: bn_policy has no effect"
    statistics = "updated" if policy.update_running_statistics else "kept"
    affine = "trained" if policy.train_affine_parameters else "frozen"
    return f"{number} BatchNorms: statistics {statistics}, scale and bias {affine} where their block learns"
