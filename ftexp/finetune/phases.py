"""Stages as phases: which blocks learn, for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftexp.config import OptimizerConfig, PhaseConfig, StageConfig
from ftexp.errors import ConfigError, nearest
from ftexp.models.blocks import HEAD


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with a fixed set of learning blocks.

    Attributes:
        learning: names of the blocks that learn, in the order of the network; always with the head.
    """

    name: str
    epochs: int
    learning: tuple[str, ...]


def plan_phases(stage: StageConfig, names: Sequence[str]) -> tuple[Phase, ...]:
    """Resolve a stage against the blocks of a network.

    Args:
        names: all block names, stem first, the head last.

    Raises:
        ConfigError: when a phase names a block that is not there, or more blocks than there are.
    """
    return tuple(Phase(phase.name, phase.epochs, _learning(phase, names)) for phase in stage.phases)


def check_block_rates(optimizer: OptimizerConfig, phases: Sequence[Phase], names: Sequence[str]) -> None:
    """Refuse rates for blocks that do not exist or never learn.

    Raises:
        ConfigError: naming the block and what is allowed.
    """
    learning = {block for phase in phases for block in phase.learning}
    for block in optimizer.block_lrs:
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
