"""The schema of ``stage`` and ``bn_policy``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError


@dataclass(slots=True)
class PhaseConfig:
    """One stretch of training with a fixed set of learning blocks."""

    name: str = MISSING
    # head: only the head; last: the last `last_blocks` blocks and the head; blocks: those named, and the head; all.
    learn: Literal["head", "last", "blocks", "all"] = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # With learn=last: repeat the phase with one block more each time, until the whole network learns.
    one_block_more: bool = False
    epochs: int = MISSING
    # Factor on every rate of the optimizer; lower for deeper phases, which start from weights that are good already.
    lr_factor: float = 1.0
    # Keys of these groups that have other values in this phase.
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    bn_policy: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StageConfig:
    """A recipe: phases in order. The keys beside ``phases`` are there for the phases to refer to."""

    epochs: int = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # When a later phase is kept: its validation metric is better by more than `margin`; or significantly so, in a
    # paired test on the same samples; or always (off). A phase that is not kept is undone and ends the stage.
    gate: Literal["better", "significant", "off"] = "better"
    margin: float = 0.0
    phases: list[PhaseConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "stage.epochs", self.epochs, "at least 1")
        last = self.last_blocks
        check(last is None or last >= 1, "stage.last_blocks", last, "at least 1 (stage=head trains the head alone)")
        check(self.margin >= 0, "stage.margin", self.margin, "0 or above")
        if self.margin > 0 and self.gate != "better":
            raise ConfigError(
                f"stage.margin={self.margin} has no effect with stage.gate={self.gate}; set it to better."
            )
        check(len(self.phases) >= 1, "stage.phases", self.phases, "a list of at least one phase")
        for phase in self.phases:
            _check_phase(phase)
        names = [phase.name for phase in self.phases]
        check(len(set(names)) == len(names), "stage.phases", names, "phases of different names")
        learns = [phase.learn for phase in self.phases]
        if last is not None and "last" not in learns:
            raise ConfigError(f"stage.last_blocks={last} has no effect: no phase has learn=last. Use stage=partial.")
        if self.blocks and "blocks" not in learns:
            raise ConfigError(f"stage.blocks={self.blocks} has no effect: no phase has learn=blocks. Use stage=blocks.")


def _check_phase(phase: PhaseConfig) -> None:
    key = f"stage.phases ({phase.name})"
    check(phase.epochs >= 1, f"{key}.epochs", phase.epochs, "at least 1")
    check(phase.lr_factor > 0, f"{key}.lr_factor", phase.lr_factor, "above 0")
    if phase.learn == "last":
        check((phase.last_blocks or 0) >= 1, f"{key}.last_blocks", phase.last_blocks, "at least 1 with learn=last")
    elif phase.last_blocks is not None:
        raise ConfigError(f"{key}.last_blocks={phase.last_blocks} has no effect with learn={phase.learn}; remove it.")
    if phase.one_block_more and phase.learn != "last":
        raise ConfigError(f"{key}.one_block_more has no effect with learn={phase.learn}; set it to last.")
    if phase.learn == "blocks":
        check(len(phase.blocks) >= 1, f"{key}.blocks", phase.blocks, "a list of block names with learn=blocks")
    elif phase.blocks:
        raise ConfigError(f"{key}.blocks={phase.blocks} has no effect with learn={phase.learn}; remove it.")


@dataclass(slots=True)
class BatchNormPolicyConfig:
    """What the BatchNorm layers of learning blocks may change. In frozen blocks they change nothing."""

    # True: batch statistics in training, running statistics updated. False: eval mode, statistics kept.
    update_running_statistics: bool = MISSING
    # True: scale and bias are trained. False: they keep their values.
    train_affine_parameters: bool = MISSING
