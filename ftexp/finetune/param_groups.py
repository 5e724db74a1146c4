"""Parameter groups: block x {decay, no decay}, by role too where the optimizer asks; each has the rate of its block."""

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
        role: of its parameters (``ftexp/finetune/decay.py``); several, with commas between them, where the optimizer
            does not tell roles apart.
    """

    block: str
    role: str
    lr: float
    weight_decay: float
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def block_rate(config: OptimizerConfig, names: Sequence[str], block: str) -> float:
    """The learning rate of a block.

    The rate named for it in ``block_lrs``, else ``head_lr`` for the head, else ``backbone_lr`` times
    ``block_decay`` once for every block between it and the one next to the head.

    Args:
        names: all block names, stem first, the head last.
    """
    if block in config.block_lrs:
        return config.block_lrs[block]
    if block == HEAD:
        return config.head_lr
    distance = len(names) - 2 - list(names).index(block)
    return config.backbone_lr * config.block_decay**distance


def build_param_groups(network: Network, phase: Phase, *, decay_backbone: bool = True) -> list[ParamGroup]:
    """Group the parameters that have a gradient; to be called after ``open_blocks``.

    Args:
        decay_backbone: False where something else takes the place of weight decay below the head.

    Returns:
        At most two groups a block, from the stem to the head, the decayed one first; none is empty. One for every role
        in them where ``optimizer.by_role`` asks for it, alone, so that saved states of the others still fit.
    """
    rules, config = decay_rules(network.module), phase.optimizer
    groups = []
    for block in phase.learning:
        trainable = {name: p for name, p in network.parameters(block).items() if p.requires_grad}
        rate = block_rate(config, network.names, block)
        roles = {name: rules[name].role(in_head=block == HEAD) for name in trainable}
        for decays in (True, False):
            decay = config.weight_decay if decays and (decay_backbone or block == HEAD) else 0.0
            alike = {name: roles[name] for name in trainable if rules[name].decays is decays}
            for names in _split(alike, by_role=config.by_role):
                role = ", ".join(dict.fromkeys(roles[name] for name in names))
                groups.append(ParamGroup(block, role, rate, decay, names, tuple(trainable[name] for name in names)))
    return groups


def _split(roles: Mapping[str, Role], *, by_role: bool) -> list[tuple[str, ...]]:
    """Names in groups of one role each, or in a single group; none is empty."""
    if not by_role:
        return [tuple(roles)] if roles else []
    return [tuple(name for name in roles if roles[name] == role) for role in dict.fromkeys(roles.values())]


def group_table(network: Network, groups: Sequence[ParamGroup]) -> list[dict[str, object]]:
    """Rows for people: every tensor of the network stands in exactly one of them.

    Returns:
        A row per group and one per block's frozen rest, with the keys block, role, tensors, parameters, lr,
        weight_decay, trainable and rule (what decided about the decay and the role).
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
