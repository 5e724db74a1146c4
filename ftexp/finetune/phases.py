"""Turns a stage into phases: which blocks are trainable, or which of their parameters, and for how many epochs."""

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
    TrainConfig,
    with_changes,
)
from ftexp.config.stage import StageConfig
from ftexp.errors import ConfigError, nearest
from ftexp.finetune.adapters import ADAPTERS, Change, build_change
from ftexp.finetune.decay import decay_rules
from ftexp.finetune.recipe import foreseen
from ftexp.finetune.what_learns import RULES, Part, choose_part, learning_blocks
from ftexp.models.blocks import HEAD, Network


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of training with a fixed set of trainable parameters, and the settings for it.

    Attributes:
        name: name of the phase.
        epochs: number of epochs.
        learning: names of the blocks with trainable parameters, in the order of the network; always with the head.
        optimizer: settings of the optimizer, with rates that already include ``lr_factor``.
        scheduler: settings of the learning-rate schedule.
        bn_policy: the BatchNorm policy.
        augment: the augmentation.
        lr_factor: the phase's factor on the learning rates.
        patience: it ends early after this many epochs without a better metric; None: it runs all its epochs.
        part: the trainable parameters below the head; None: all parameters of the blocks in ``learning``.
        change: the change of the network during the phase, if any; ``part`` has the names of the changed network.
        solved: whether the head is solved to its optimum on frozen features, instead of trained by steps.
        compiled: whether training and scoring run compiled.
    """

    name: str
    epochs: int
    learning: tuple[str, ...]
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    bn_policy: BatchNormPolicyConfig
    augment: AugmentConfig
    lr_factor: float = 1.0
    patience: int | None = None
    part: Part | None = None
    change: Change | None = None
    solved: bool = False
    compiled: bool = False

    def learns(self, block: str, name: str) -> bool:
        """Whether the phase chooses a parameter (block and full name) as trainable; bn_policy may still freeze it."""
        return block in self.learning and (self.part is None or block == HEAD or name in self.part.names)

    @property
    def kind(self) -> str:
        """Prefix for a list of the blocks, such as ``norms of ``; empty if all their parameters are trainable."""
        return f"{self.part.kind} of " if self.part is not None and len(self.learning) > 1 else ""


def looks_into_blocks(stage: StageConfig) -> bool:
    """Whether planning a stage needs the network, because it chooses among the parameters of blocks."""
    return any(phase.learn in RULES for phase in stage.phases)


def plan_phases(config: Config, names: Sequence[str], network: Network | None = None) -> tuple[Phase, ...]:
    """Plan the phases of the configured stage for the blocks of a network; where it says ``auto``, as ``foreseen``.

    Args:
        config: the configuration of the run.
        names: all block names from the stem to the head.
        network: the network with these blocks, or its skeleton; needed only if the stage ``looks_into_blocks``.

    Raises:
        ConfigError: if a phase names a block that does not exist, asks for more blocks than there are, unfreezes
            nothing compared with the phase before, chooses no parameter, has patterns that leave parameters undecided,
            or changes a setting that does not exist; if ``block_lrs`` names a block that does not exist or is always
            frozen; or if ``train.l2_sp`` or ``train.wise_ft`` has no effect.
    """
    config = foreseen(config, network)
    phases = tuple(
        _resolve(phase, config, names, network) for given in config.stage.phases for phase in _expand(given, names)
    )
    for before, after in pairwise(phases):
        if _learns_nothing_new(before, after):
            raise ConfigError(
                f"Phase {after.name} unfreezes nothing new: {before.name} already trains {before.kind}"
                f"{', '.join(before.learning)}. A later phase has to unfreeze at least one more block or "
                "parameter; leave it out, or give the earlier one more epochs."
            )
    _check_block_rates(phases, names)
    _check_starting_weights(config.train, phases, network)
    return phases


def deepest(phases: Sequence[Phase]) -> Phase:
    """The phase with the most trainable blocks; among those, the one that trains most of them, and the first."""
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
    assert isinstance(phase.epochs, int)
    assert isinstance(config.augment, AugmentConfig)
    bn_policy = with_changes(config.bn_policy, phase.bn_policy, f"{key}.bn_policy")
    learning, part, change = _blocks(phase, names), None, None
    if phase.learn in RULES:
        assert network is not None, "planning this stage needs the network"
        part = choose_part(phase, network, learning)
        learning = learning_blocks(part, network, bn_policy, phase.name)
        if phase.learn in ADAPTERS:
            change = build_change(phase, part.names, config)
            part = Part("adapters", change.learning)
    return Phase(
        name=phase.name,
        epochs=phase.epochs,
        learning=learning,
        optimizer=_scaled(optimizer, phase.lr_factor),
        scheduler=with_changes(config.scheduler, phase.scheduler, f"{key}.scheduler"),
        bn_policy=bn_policy,
        augment=with_changes(config.augment, phase.augment, f"{key}.augment"),
        lr_factor=phase.lr_factor,
        patience=config.train.patience or phase.patience,
        part=part,
        change=change,
    )


def _scaled(optimizer: OptimizerConfig, factor: float) -> OptimizerConfig:
    return replace(
        optimizer,
        head_lr=optimizer.number("head_lr") * factor,
        backbone_lr=optimizer.number("backbone_lr") * factor,
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
                f"Remove it, or choose a stage in which {block} is trainable."
            )


def _check_starting_weights(settings: TrainConfig, phases: Sequence[Phase], network: Network | None) -> None:
    """Refuse L2-SP and WiSE-FT if no phase changes a weight that they act on."""
    opened = [phase for phase in phases if phase.learning != (HEAD,)]
    if settings.wise_ft and not opened:
        raise ConfigError(
            f"train.wise_ft={settings.wise_ft} has no effect: everything below the head is frozen in every phase. "
            "Use train.wise_ft=[], or a stage that trains more than the head."
        )
    rules = decay_rules(network.module) if network is not None else {}
    if settings.l2_sp is None or any(
        phase.part is None or any(rules[name].decays for name in phase.part.names) for phase in opened
    ):
        return
    raise ConfigError(
        f"train.l2_sp={settings.l2_sp:g} has no effect: it pulls the weight matrices below the head towards their "
        "starting values, and no phase trains any of them. Use train.l2_sp=null, or a stage that trains whole blocks."
    )


def _blocks(phase: PhaseConfig, names: Sequence[str]) -> tuple[str, ...]:
    """The blocks that a phase names or counts from the end, with the head; all blocks if it does neither."""
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
