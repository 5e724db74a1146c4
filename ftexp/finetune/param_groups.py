"""Parameter groups: one per block and per weight decay or none; also one per role for optimizers that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ftexp.config import OptimizerConfig
from ftexp.finetune.decay import DecayRule, Role, decay_rules
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import HEAD, Network


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """Parameters that share a block, a learning rate and a weight decay.

    Attributes:
        block: name of the block.
        role: role of the parameters (``ftexp/finetune/decay.py``); several roles are separated by commas, if the
            optimizer does not distinguish them.
        lr: the learning rate at factor 1 of the schedule.
        weight_decay: the weight decay; 0 for parameters without it.
        names: full names of the parameters.
        parameters: the parameters in the order of their names.
    """

    block: str
    role: str
    lr: float
    weight_decay: float
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def block_rate(config: OptimizerConfig, names: Sequence[str], block: str) -> float:
    """The learning rate of a block.

    This is its rate in ``block_lrs``, if it has one there; else ``head_lr`` for the head. For a block of the backbone,
    it is ``backbone_lr``, multiplied by ``block_decay`` once per step from the block next to the head down to it.

    Args:
        config: the rates.
        names: all block names from the stem to the head.
        block: name of the block.
    """
    if block in config.block_lrs:
        return config.block_lrs[block]
    if block == HEAD:
        return config.number("head_lr")
    distance = len(names) - 2 - list(names).index(block)
    return config.number("backbone_lr") * config.number("block_decay") ** distance


def build_param_groups(network: Network, phase: Phase, *, decay_backbone: bool = True) -> list[ParamGroup]:
    """Group the trainable parameters; call this after ``open_blocks``.

    Args:
        network: the network.
        phase: the phase, whose optimizer settings give rates and weight decay.
        decay_backbone: False if another penalty replaces weight decay below the head.

    Returns:
        At most two groups per block, from the stem to the head, the one with weight decay first; none is empty. With
        ``optimizer.by_role``, each is split by role; without it, groups stay as they are in older checkpoints.
    """
    rules, config = decay_rules(network.module), phase.optimizer
    groups = []
    for block in phase.learning:
        trainable = {name: p for name, p in network.parameters(block).items() if p.requires_grad}
        rate = block_rate(config, network.names, block)
        roles = {name: rules[name].role(in_head=block == HEAD) for name in trainable}
        for decays in (True, False):
            decay = config.number("weight_decay") if decays and (decay_backbone or block == HEAD) else 0.0
            alike = {name: roles[name] for name in trainable if rules[name].decays is decays}
            for names in _split(alike, by_role=config.by_role):
                role = ", ".join(dict.fromkeys(roles[name] for name in names))
                groups.append(ParamGroup(block, role, rate, decay, names, tuple(trainable[name] for name in names)))
    return groups


def _split(roles: Mapping[str, Role], *, by_role: bool) -> list[tuple[str, ...]]:
    """The names, split by role or in a single group; no group is empty."""
    if not by_role:
        return [tuple(roles)] if roles else []
    return [tuple(name for name in roles if roles[name] == role) for role in dict.fromkeys(roles.values())]


def group_table(network: Network, groups: Sequence[ParamGroup]) -> list[dict[str, object]]:
    """A table for users, in which every parameter of the network is in exactly one row.

    Returns:
        A row per group, and one for the frozen parameters of each block, with the keys block, role, tensors,
        parameters, lr, weight_decay, trainable and rule (what decided about weight decay and role).
    """
    rules = decay_rules(network.module)
    rows = []
    for block in network.names:
        tensors = network.parameters(block)
        mine = [group for group in groups if group.block == block]
        for group in mine:
            chosen = {name: tensors[name] for name in group.names}
            rows.append(_row(block, chosen, group, _reasons(rules, group.names)))
        opened = {name for group in mine for name in group.names}
        frozen = {name: p for name, p in tensors.items() if name not in opened}
        if frozen:
            rows.append(_row(block, frozen, None, "frozen"))
    return rows


def _row(block: str, tensors: dict[str, nn.Parameter], group: ParamGroup | None, rule: str) -> dict[str, object]:
    return {
        "block": block,
        "role": group.role if group else None,
        "tensors": len(tensors),
        "parameters": sum(p.numel() for p in tensors.values()),
        "lr": group.lr if group else None,
        "weight_decay": group.weight_decay if group else None,
        "trainable": group is not None,
        "rule": rule,
    }


def _reasons(rules: dict[str, DecayRule], names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(rules[name].reason for name in names))
