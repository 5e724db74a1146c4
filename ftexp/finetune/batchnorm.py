"""The BatchNorm policy: two switches, set as flags on the layers and never by swapping them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import BatchNormPolicyConfig


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Every BatchNorm layer of any dimension below ``module``: synchronised, lazy and timm's fused ones too."""
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))


def apply_affine_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> None:
    """Freeze scale and bias of the BatchNorm layers below ``module`` if the policy says so."""
    if policy.train_affine_parameters:
        return
    for layer in batch_norms(module):
        layer.requires_grad_(False)


def apply_statistics_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> None:
    """Put the BatchNorm layers below ``module`` into eval mode if the policy keeps their running statistics.

    ``module.train()`` undoes this, so it has to follow every such call.
    """
    if policy.update_running_statistics:
        return
    for layer in batch_norms(module):
        layer.eval()


def describe_policy(module: nn.Module, policy: BatchNormPolicyConfig) -> str:
    """One phrase for the log: what the policy does to this network, and where it has nothing to do."""
    number = sum(1 for _ in batch_norms(module))
    if number == 0:
        return "no BatchNorm: bn_policy has no effect"
    statistics = "updated" if policy.update_running_statistics else "kept"
    affine = "trained" if policy.train_affine_parameters else "frozen"
    return f"{number} BatchNorms: statistics {statistics}, scale and bias {affine} where their block learns"
