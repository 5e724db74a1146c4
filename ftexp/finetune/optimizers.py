"""The optimizer of a phase, built anew from the groups that learn in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim import Adan, Lion
from torch.optim import Optimizer

from ftexp.config import OptimizerConfig
from ftexp.config.optim import AdamWConfig, AdanConfig, LionConfig, SgdConfig
from ftexp.finetune.param_groups import ParamGroup

# As torch takes them: params, lr and weight_decay, with the block and the role beside them.
Groups = list[dict[str, Any]]


def build_optimizer(config: OptimizerConfig, groups: Sequence[ParamGroup], device: torch.device) -> Optimizer:
    """Build the configured optimizer over the groups, each with its own rate and decay.

    On CUDA, one kernel updates many tensors: torch's fused implementations, timm's on lists of tensors.
    """
    params = [
        {
            "params": list(group.parameters),
            "lr": group.lr,
            "weight_decay": group.weight_decay,
            "block": group.block,
            "role": group.role,
        }
        for group in groups
    ]
    return BUILDERS[type(config)](config, params, device.type == "cuda")


def _adamw(config: AdamWConfig, groups: Groups, on_cuda: bool) -> Optimizer:
    beta1, beta2 = config.betas
    return torch.optim.AdamW(groups, betas=(beta1, beta2), eps=config.eps, fused=on_cuda)


def _sgd(config: SgdConfig, groups: Groups, on_cuda: bool) -> Optimizer:
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, fused=on_cuda)


def _lion(config: LionConfig, groups: Groups, on_cuda: bool) -> Optimizer:
    lion: Optimizer = Lion(groups, betas=tuple(config.betas), foreach=on_cuda)
    return lion


def _adan(config: AdanConfig, groups: Groups, on_cuda: bool) -> Optimizer:
    adan: Optimizer = Adan(groups, betas=tuple(config.betas), eps=config.eps, foreach=on_cuda)
    return adan


BUILDERS: dict[type[OptimizerConfig], Callable[[Any, Groups, bool], Optimizer]] = {
    AdamWConfig: _adamw,
    SgdConfig: _sgd,
    LionConfig: _lion,
    AdanConfig: _adan,
}
