"""Stages as phases: which blocks learn, for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ftexp.config import (
    AugmentConfig,
    BatchNormPolicyConfig,
    Config,
    OptimizerConfig,
    PhaseConfig,
    SchedulerConfig,
    with_changes,
)
from ftexp.errors import ConfigError, nearest
from ftexp.models.blocks import HEAD


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with a fixed set of learning blocks, and all that holds for it.

    Attributes:
        learning: names of the blocks that learn, in the order of the network; always with the head.
        lr_factor: what the optimizer's rates have been multiplied by already.
    """

    name: str
    epochs: int
    learning: tuple[str, ...]
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    bn_policy: BatchNormPolicyConfig
    augment: AugmentConfig
    lr_factor: float = 1.0


def plan_phases(config: Config, names: Sequence[str]) -> tuple[Phase, ...]:
    """Resolve the stage against the blocks of a network.

    Args:
        names: all block names, stem first, the head last.

    Raises:
        ConfigError: when a phase names a block that is not there, more blocks than there are, learns nothing that
            the phase before did not learn too, or changes a setting that does not exist; when a rate is given to a
            block that does not exist or never learns.
    """
    phases = tuple(_resolve(phase, config, names) for given in config.stage.phases for phase in _expand(given, names))
    for before, after in pairwise(phases):
        if set(after.learning) <= set(before.learning):
            raise ConfigError(
                f"Phase {after.name} learns nothing new: {before.name} learns {', '.join(before.learning)} already. "
                "A later phase has to open at least one more block; leave it out, or give the earlier one more epochs."
            )
    _check_block_rates(phases, names)
    return phases


def _expand(phase: PhaseConfig, names: Sequence[str]) -> list[PhaseConfig]:
    if not phase.one_block_more:
        return [phase]
    counts = range(phase.last_blocks or 1, len(names))
    return [replace(phase, name=f"{phase.name}-{count}", last_blocks=count, one_block_more=False) for count in counts]


def _resolve(phase: PhaseConfig, config: Config, names: Sequence[str]) -> Phase:
    key = f"stage.phases ({phase.name})"
    optimizer = with_changes(config.optimizer, phase.optimizer, f"{key}.optimizer")
    return Phase(
        name=phase.name,
        epochs=phase.epochs,
        learning=_learning(phase, names),
        optimizer=_scaled(optimizer, phase.lr_factor),
        scheduler=with_changes(config.scheduler, phase.scheduler, f"{key}.scheduler"),
        bn_policy=with_changes(config.bn_policy, phase.bn_policy, f"{key}.bn_policy"),
        augment=with_changes(config.augment, phase.augment, f"{key}.augment"),
        lr_factor=phase.lr_factor,
    )


def _scaled(optimizer: OptimizerConfig, factor: float) -> OptimizerConfig:
    return replace(
        optimizer,
        head_lr=optimizer.head_lr * factor,
        backbone_lr=optimizer.backbone_lr * factor,
        block_lrs={block: rate * factor for block, rate in optimizer.block_lrs.items()},
    )


def _check_block_rates(phases: Sequence[Phase], names: Sequence[str]) -> None:
    learning = {block for phase in phases for block in phase.learning}
    for block in dict.fromkeys(block for phase in phases for block in phase.optimizer.block_lrs):
        if block not in names:
            raise _unknown_block(f"optimizer.block_lrs.{block}", block, names)
        if block not in learning:
            raise ConfigError(
                f"optimizer.block_lrs.{block} has no effect: {block} is frozen in every phase. "
                f"Remove it, or choose a stage in which {block} learns."
            )


def _learning(phase: PhaseConfig, names: Sequence[str]) -> tuple[str, ...]:
    backbone = [name for name in names if name != HEAD]
    if phase.learn == "all":
        return tuple(names)
    if phase.learn == "last":
        count = phase.last_blocks or 0
        if count > len(backbone):
            raise ConfigError(
                f"last_blocks={count} in phase {phase.name}: the network has {len(backbone)} blocks before its head "
                f"({', '.join(backbone)}). Use at most {len(backbone)}, or stage=full."
            )
        return tuple(names[-1 - count :])
    for block in phase.blocks:
        if block not in names:
            raise _unknown_block(f"blocks of phase {phase.name}", block, names)
    return tuple(name for name in names if name in phase.blocks or name == HEAD)


def _unknown_block(key: str, block: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{key}: the network has no block {block}.{nearest(block, names)} Its blocks: {', '.join(names)}."
    )
