"""Stages as phases: which blocks learn, or which part of them, for how many epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

from ftexp.config import (
    AugmentConfig,
    BatchNormPolicyConfig,
    Config,
    OptimizerConfig,
    PhaseConfig,
    SchedulerConfig,
    with_changes,
)
from ftexp.config.stage import StageConfig
from ftexp.errors import ConfigError, nearest
from ftexp.finetune.what_learns import RULES, Part, choose_part, learning_blocks
from ftexp.models.blocks import HEAD, Network


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of training with a fixed set of learning parameters, and all that holds for it.

    Attributes:
        learning: names of the blocks that learn, or in which something does, in the order of the network; always with
            the head.
        lr_factor: what the optimizer's rates have been multiplied by already.
        part: what of these blocks learns below the head; None: all of them.
    """

    name: str
    epochs: int
    learning: tuple[str, ...]
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    bn_policy: BatchNormPolicyConfig
    augment: AugmentConfig
    lr_factor: float = 1.0
    part: Part | None = None

    def learns(self, block: str, name: str) -> bool:
        """Whether a parameter of a block (by its full name) learns, as far as bn_policy lets it."""
        return block in self.learning and (self.part is None or block == HEAD or name in self.part.names)

    @property
    def kind(self) -> str:
        """What of the blocks learns, for a list of them: ``norms of ``, or nothing where it is all."""
        return f"{self.part.kind} of " if self.part is not None and len(self.learning) > 1 else ""


def looks_into_blocks(stage: StageConfig) -> bool:
    """Whether a stage can only be planned with a network at hand, because it chooses among the parameters of blocks."""
    return any(phase.learn in RULES for phase in stage.phases)


def plan_phases(config: Config, names: Sequence[str], network: Network | None = None) -> tuple[Phase, ...]:
    """Resolve the stage against the blocks of a network.

    Args:
        names: all block names, stem first, the head last.
        network: with these blocks, for a stage that ``looks_into_blocks``; its skeleton is enough.

    Raises:
        ConfigError: when a phase names a block that is not there, more blocks than there are, learns nothing that
            the phase before did not learn too, chooses no parameters, leaves some undecided, or changes a setting that
            does not exist; when a rate is given to a block that does not exist or never learns.
    """
    phases = tuple(
        _resolve(phase, config, names, network) for given in config.stage.phases for phase in _expand(given, names)
    )
    for before, after in pairwise(phases):
        if _learns_nothing_new(before, after):
            raise ConfigError(
                f"Phase {after.name} learns nothing new: {before.name} learns {before.kind}"
                f"{', '.join(before.learning)} already. A later phase has to open at least one more block or "
                "parameter; leave it out, or give the earlier one more epochs."
            )
    _check_block_rates(phases, names)
    return phases


def deepest(phases: Sequence[Phase]) -> Phase:
    """The first phase in which most blocks learn, and most of them."""
    return max(phases, key=lambda phase: (len(phase.learning), len(phase.part.names) if phase.part else inf))


def _learns_nothing_new(before: Phase, after: Phase) -> bool:
    if not set(after.learning) <= set(before.learning):
        return False
    if before.part is None or after.learning == (HEAD,):
        return True
    return after.part is not None and after.part.names <= before.part.names


def _expand(phase: PhaseConfig, names: Sequence[str]) -> list[PhaseConfig]:
    if not phase.one_block_more:
        return [phase]
    counts = range(phase.last_blocks or 1, len(names))
    return [replace(phase, name=f"{phase.name}-{count}", last_blocks=count, one_block_more=False) for count in counts]


def _resolve(phase: PhaseConfig, config: Config, names: Sequence[str], network: Network | None) -> Phase:
    key = f"stage.phases ({phase.name})"
    optimizer = with_changes(config.optimizer, phase.optimizer, f"{key}.optimizer")
    bn_policy = with_changes(config.bn_policy, phase.bn_policy, f"{key}.bn_policy")
    learning, part = _blocks(phase, names), None
    if phase.learn in RULES:
        assert network is not None, "plan a stage that looks into blocks with a network"
        part = choose_part(phase, network, learning)
        learning = learning_blocks(part, network, bn_policy, phase.name)
    return Phase(
        name=phase.name,
        epochs=phase.epochs,
        learning=learning,
        optimizer=_scaled(optimizer, phase.lr_factor),
        scheduler=with_changes(config.scheduler, phase.scheduler, f"{key}.scheduler"),
        bn_policy=bn_policy,
        augment=with_changes(config.augment, phase.augment, f"{key}.augment"),
        lr_factor=phase.lr_factor,
        part=part,
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


def _blocks(phase: PhaseConfig, names: Sequence[str]) -> tuple[str, ...]:
    """The blocks that a phase counts or names, with the head; all where it does neither."""
    backbone = [name for name in names if name != HEAD]
    if phase.learn == "head":
        return (HEAD,)
    if (count := phase.last_blocks) is not None:
        if count > len(backbone):
            raise ConfigError(
                f"last_blocks={count} in phase {phase.name}: the network has {len(backbone)} blocks before its head "
                f"({', '.join(backbone)}). Use at most {len(backbone)}, or stage=full."
            )
        return tuple(names[-1 - count :])
    for block in phase.blocks:
        if block not in names:
            raise _unknown_block(f"blocks of phase {phase.name}", block, names)
    return tuple(name for name in names if name in (*phase.blocks, HEAD)) if phase.blocks else tuple(names)


def _unknown_block(key: str, block: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"{key}: the network has no block {block}.{nearest(block, names)} Its blocks: {', '.join(names)}."
    )
