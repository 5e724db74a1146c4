"""The schema of ``stage`` and ``bn_policy``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError

# What learns beside the head -> the keys that go with it. Whole blocks: none; those that the key counts or names; all.
# Some parameters of all blocks, or of those that a key counts or names: as finetune/what_learns.py chooses them.
Learn = Literal["head", "last", "blocks", "all", "norms", "biases", "patterns"]
LEARN: dict[str, tuple[str, ...]] = {
    "head": (),
    "last": ("last_blocks", "one_block_more"),
    "blocks": ("blocks",),
    "all": (),
    "norms": ("last_blocks", "blocks"),
    "biases": ("last_blocks", "blocks"),
    "patterns": ("patterns",),
}
# The keys without which a kind says nothing.
REQUIRED = {
    "last": ("last_blocks", "at least 1"),
    "blocks": ("blocks", "a list of block names"),
    "patterns": ("patterns", "a list of patterns of parameter names"),
}


@dataclass(slots=True)
class PhaseConfig:
    """One stretch of training with a fixed set of learning parameters."""

    name: str = MISSING
    # The head always, and beside it: head: nothing; last: the last `last_blocks` blocks; blocks: those named; all;
    # norms: scale and bias of every normalisation layer; biases: every bias; patterns: what `patterns` chooses.
    # Of norms and biases only those in the last `last_blocks` blocks, or in the `blocks` named, where that is given.
    learn: Learn = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # With learn=patterns: globs of full parameter names, such as layer4.*.bias; `*` stands for anything, dots too. The
    # first one that matches a parameter decides about it: it learns, or, with `-` before the pattern, it is frozen.
    # Every parameter below the head has to be matched: `-*` at the end freezes the rest.
    patterns: list[str] = field(default_factory=list)
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
    patterns: list[str] = field(default_factory=list)
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
        for name, option in (("last_blocks", "partial"), ("blocks", "blocks"), ("patterns", "patterns")):
            kinds = [kind for kind, keys in LEARN.items() if name in keys]
            if (value := getattr(self, name)) and not set(kinds) & set(learns):
                raise ConfigError(
                    f"stage.{name}={value} has no effect: no phase has learn={' or '.join(kinds)}. Use stage={option}."
                )


def _check_phase(phase: PhaseConfig) -> None:
    key = f"stage.phases ({phase.name})"
    check(phase.epochs >= 1, f"{key}.epochs", phase.epochs, "at least 1")
    check(phase.lr_factor > 0, f"{key}.lr_factor", phase.lr_factor, "above 0")
    last = phase.last_blocks
    check(last is None or last >= 1, f"{key}.last_blocks", last, "at least 1")
    for name in ("last_blocks", "blocks", "patterns", "one_block_more"):
        value = getattr(phase, name)
        if value and name not in LEARN[phase.learn]:
            raise ConfigError(f"{key}.{name}={value} has no effect with learn={phase.learn}; remove it.")
    if phase.learn in REQUIRED:
        name, allowed = REQUIRED[phase.learn]
        check(bool(getattr(phase, name)), f"{key}.{name}", getattr(phase, name), f"{allowed} with learn={phase.learn}")
    if phase.last_blocks and phase.blocks:
        raise ConfigError(
            f"{key}.last_blocks={last} and .blocks={phase.blocks} exclude each other; remove one of them."
        )


@dataclass(slots=True)
class BatchNormPolicyConfig:
    """What the BatchNorm layers of learning blocks may change. In frozen blocks they change nothing."""

    # True: batch statistics in training, running statistics updated. False: eval mode, statistics kept.
    update_running_statistics: bool = MISSING
    # True: scale and bias are trained. False: they keep their values.
    train_affine_parameters: bool = MISSING
