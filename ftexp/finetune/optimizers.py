"""The optimizer of a phase, built anew from the groups that learn in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.optim import Adan, Lion
from torch.optim import Optimizer

from ftexp.config import AdamWConfig, AdanConfig, LionConfig, OptimizerConfig, SgdConfig
from ftexp.finetune.param_groups import ParamGroup


def build_optimizer(config: OptimizerConfig, groups: Sequence[ParamGroup], device: torch.device) -> Optimizer:
    """Build the configured optimizer over the groups, each with its own rate and decay.

    On CUDA, one kernel updates many tensors: torch's fused implementations, timm's on lists of tensors.
    """
    on_cuda = device.type == "cuda"
    params = [
        {"params": list(group.parameters), "lr": group.lr, "weight_decay": group.weight_decay, "block": group.block}
        for group in groups
    ]
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(params, momentum=config.momentum, nesterov=config.nesterov, fused=on_cuda)
    if isinstance(config, LionConfig):
        lion: Optimizer = Lion(params, betas=tuple(config.betas), foreach=on_cuda)
        return lion
    if isinstance(config, AdanConfig):
        adan: Optimizer = Adan(params, betas=tuple(config.betas), eps=config.eps, foreach=on_cuda)
        return adan
    assert isinstance(config, AdamWConfig)
    beta1, beta2 = config.betas
    return torch.optim.AdamW(params, betas=(beta1, beta2), eps=config.eps, fused=on_cuda)
