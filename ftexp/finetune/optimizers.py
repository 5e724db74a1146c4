"""The optimizer of a phase, built anew from the groups that learn in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from ftexp.config import AdamWConfig, OptimizerConfig, SgdConfig
from ftexp.finetune.param_groups import ParamGroup


def build_optimizer(config: OptimizerConfig, groups: Sequence[ParamGroup], device: torch.device) -> Optimizer:
    """Build the configured optimizer over the groups, each with its own rate and decay.

    The fused implementation is used on CUDA, where one kernel updates many tensors.
    """
    fused = device.type == "cuda"
    params = [
        {"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay, "block": group.block}
        for group in groups
    ]
    if isinstance(config, AdamWConfig):
        beta1, beta2 = config.betas
        return torch.optim.AdamW(params, betas=(beta1, beta2), eps=config.eps, fused=fused)
    assert isinstance(config, SgdConfig)
    return torch.optim.SGD(params, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
