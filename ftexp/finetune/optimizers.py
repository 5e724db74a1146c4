"""Builds the optimizer of a phase from its parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.optim import Optimizer

from ftexp.config import OptimizerConfig
from ftexp.config.optim import AdamWConfig, AdanConfig, LionConfig, SgdConfig
from ftexp.finetune.param_groups import ParamGroup
from ftexp.machine.accelerator import is_accelerator

# Parameter groups as torch takes them: params, lr and weight_decay; and also block and role.
Groups = list[dict[str, Any]]


def build_optimizer(config: OptimizerConfig, groups: Sequence[ParamGroup], device: torch.device) -> Optimizer:
    """Build the configured optimizer; each group has its own learning rate and weight decay.

    Args:
        config: the optimizer and its options.
        groups: the trainable parameters.
        device: on an accelerator, torch's fused and timm's foreach implementations are used.
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
    return BUILDERS[type(config)](config, params, is_accelerator(device))


@cache
def eager(optimizer: type[Any]) -> type[Any]:
    """An optimizer class that does the same, and does not import torch._dynamo, which takes a second.

    torch's decorators keep ``torch.compile`` out of the methods of optimizers, and import it for that. Here nothing
    compiles an optimizer, so these methods are the decorated functions themselves.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    return type(optimizer.__name__, (optimizer,), {**methods, "step": torch.no_grad()(inspect.unwrap(optimizer.step))})


def _adamw(config: AdamWConfig, groups: Groups, on_accelerator: bool) -> Optimizer:
    beta1, beta2 = config.betas
    adamw: Optimizer = eager(torch.optim.AdamW)(groups, betas=(beta1, beta2), eps=config.eps, fused=on_accelerator)
    return adamw


def _sgd(config: SgdConfig, groups: Groups, on_accelerator: bool) -> Optimizer:
    options = {"momentum": config.momentum, "nesterov": config.nesterov}
    sgd: Optimizer = eager(torch.optim.SGD)(groups, **options, fused=on_accelerator)
    return sgd


def _lion(config: LionConfig, groups: Groups, on_accelerator: bool) -> Optimizer:
    from timm.optim import Lion  # imports torch._dynamo

    lion: Optimizer = eager(Lion)(groups, betas=tuple(config.betas), foreach=on_accelerator)
    return lion


def _adan(config: AdanConfig, groups: Groups, on_accelerator: bool) -> Optimizer:
    from timm.optim import Adan  # imports torch._dynamo

    adan: Optimizer = eager(Adan)(groups, betas=tuple(config.betas), eps=config.eps, foreach=on_accelerator)
    return adan


BUILDERS: dict[type[OptimizerConfig], Callable[[Any, Groups, bool], Optimizer]] = {
    AdamWConfig: _adamw,
    SgdConfig: _sgd,
    LionConfig: _lion,
    AdanConfig: _adan,
}
