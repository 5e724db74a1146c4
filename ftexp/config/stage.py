"""The schema of ``stage`` and ``bn_policy``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError

# Value of `learn` -> the keys that can be set with it. "head", "last", "blocks" and "all" train whole blocks besides
# the head; "norms", "biases" and "patterns" train some parameters of the blocks (see finetune/what_learns.py); "lora"
# trains adapters of some of their weights (see finetune/adapters.py).
Learn = Literal["head", "last", "blocks", "all", "norms", "biases", "patterns", "lora"]
LEARN: dict[str, tuple[str, ...]] = {
    "head": (),
    "last": ("last_blocks", "one_block_more"),
    "blocks": ("blocks",),
    "all": (),
    "norms": ("last_blocks", "blocks"),
    "biases": ("last_blocks", "blocks"),
    "patterns": ("patterns",),
    "lora": ("last_blocks", "blocks", "patterns", "rank", "alpha"),
}
# Value of `learn` -> the keys that it requires.
_PATTERNS = "a list of patterns of parameter names"
REQUIRED = {
    "last": {"last_blocks": "at least 1"},
    "blocks": {"blocks": "a list of block names"},
    "patterns": {"patterns": _PATTERNS},
    "lora": {"patterns": _PATTERNS, "rank": "at least 1", "alpha": "above 0"},
}
# Keys of a stage that its phases refer to -> the option of the group that has such a phase.
OPTIONS = {"last_blocks": "partial", "blocks": "blocks", "patterns": "patterns", "rank": "lora", "alpha": "lora"}


@dataclass(slots=True)
class PhaseConfig:
    """One part of the training, with a fixed set of trainable parameters."""

    # The name of the phase, in logs and files.
    name: str = MISSING
    # What is trainable besides the head. head: nothing; last: the last `last_blocks` blocks; blocks: the blocks in
    # `blocks`; all: every block; norms: scale and bias of every normalisation layer; biases: every bias; patterns: the
    # parameters that `patterns` chooses; lora: low-rank adapters of the weights that `patterns` chooses, merged into
    # them at the end of the phase. For norms, biases and lora, `last_blocks` or `blocks` limits the choice to these
    # blocks.
    learn: Learn = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # With learn=patterns: globs of full parameter names, such as layer4.*.bias; `*` matches any text, dots included.
    # The first pattern that matches a parameter makes it trainable or, with a `-` before the pattern, frozen. Every
    # parameter outside the head must match a pattern; `-*` at the end freezes the rest. With learn=lora, the same for
    # the weights of linear layers and ungrouped convolutions that are larger than their adapters; the rest is frozen.
    patterns: list[str] = field(default_factory=list)
    # With learn=lora: a weight W [out, in] becomes W + alpha / rank * up @ down, where up [out, rank] and
    # down [rank, in] are trained, and up begins at zero. A higher alpha acts like a higher rate of the adapters.
    rank: int | None = None
    alpha: float | None = None
    # With learn=last: repeat the phase with one more block each time, until the whole network is trainable.
    one_block_more: bool = False
    # auto: as many as recipe.budgets allows for the size of the training set.
    epochs: int | str = MISSING
    # With learn=head and head.solver=auto: solve the head also if other phases follow; it is trained by steps where it
    # cannot be solved.
    solve: bool = False
    # The factor on all learning rates; lower for later phases, which start from weights that are good already.
    lr_factor: float = 1.0
    # What train.patience is in this phase, where that is null.
    patience: int | None = None
    # Settings of these groups that have other values in this phase.
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    bn_policy: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StageConfig:
    """A recipe: phases in their order. The phases refer to ``epochs``, ``last_blocks``, ``blocks`` and ``patterns``."""

    # The epochs of each phase. auto: as many as recipe.budgets allows for the size of the training set.
    epochs: int | str = MISSING
    # With stage=partial: how many of the last blocks learn. With stage=norms, bias and lora, this or `blocks` limits
    # the choice to some blocks.
    last_blocks: int | None = None
    # With stage=blocks: the names of the blocks that learn; python -m ftexp.models MODEL shows them.
    blocks: list[str] = field(default_factory=list)
    # With stage=patterns and lora: globs of parameter names, of which the first that matches decides, as in
    # "stage.patterns=[layer4.*.bn2.*,-*]"; stage.phases.patterns says more.
    patterns: list[str] = field(default_factory=list)
    # With stage=lora: the rank of the adapters, and the factor alpha / rank of their product.
    rank: int | None = None
    alpha: float | None = None
    # The default of train.wise_ft: shares of the end in an average with the start, which validation chooses from.
    wise_ft: list[float] = field(default_factory=list)
    # The default of train.ema, the decay of a moving average of the weights; null: no averaging.
    ema: float | None = None
    # When a later phase is kept. better: if its validation metric is better by more than `margin`; significant: if it
    # is significantly better in a paired test on the same samples; off: always. A phase that is not kept is undone. A
    # phase that would not be kept even if it got every validation image right is skipped (with significant and
    # accuracy: if fewer than five are wrong), and so is, with either, one that begins with fewer than `min_errors`
    # validation images wrong.
    gate: Literal["better", "significant", "off"] = "better"
    margin: float = 0.0
    min_errors: int = 0
    # What follows a phase that was not kept. stop: the stage ends; continue: the next phase, from the weights before.
    on_dropped: Literal["stop", "continue"] = "stop"
    # The phases in their order.
    phases: list[PhaseConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check_epochs(self.epochs, "stage.epochs")
        last = self.last_blocks
        check(last is None or last >= 1, "stage.last_blocks", last, "at least 1 (stage=head trains only the head)")
        check(self.margin >= 0, "stage.margin", self.margin, "0 or above")
        if self.margin > 0 and self.gate != "better":
            raise ConfigError(
                f"stage.margin={self.margin} has no effect with stage.gate={self.gate}; set stage.gate=better."
            )
        check(self.min_errors >= 0, "stage.min_errors", self.min_errors, "0 or above")
        check(len(self.phases) >= 1, "stage.phases", self.phases, "a list of at least one phase")
        for phase in self.phases:
            _check_phase(phase)
        names = [phase.name for phase in self.phases]
        check(len(set(names)) == len(names), "stage.phases", names, "phases with different names")
        learns = [phase.learn for phase in self.phases]
        for name, option in OPTIONS.items():
            kinds = [kind for kind, keys in LEARN.items() if name in keys]
            if (value := getattr(self, name)) and not set(kinds) & set(learns):
                raise ConfigError(
                    f"stage.{name}={value} has no effect: no phase has learn={' or '.join(kinds)}. Use stage={option}."
                )


def _check_epochs(epochs: int | str, key: str) -> None:
    number = isinstance(epochs, int) and not isinstance(epochs, bool) and epochs >= 1
    check(number or epochs == "auto", key, epochs, "at least 1, or auto")


def _check_phase(phase: PhaseConfig) -> None:
    key = f"stage.phases ({phase.name})"
    _check_epochs(phase.epochs, f"{key}.epochs")
    check(not phase.solve or phase.learn == "head", f"{key}.solve", phase.solve, "false: only learn=head can be solved")
    check(phase.lr_factor > 0, f"{key}.lr_factor", phase.lr_factor, "above 0")
    check(phase.patience is None or phase.patience >= 1, f"{key}.patience", phase.patience, "at least 1, or null")
    last = phase.last_blocks
    check(last is None or last >= 1, f"{key}.last_blocks", last, "at least 1")
    for name in (*OPTIONS, "one_block_more"):
        value = getattr(phase, name)
        if value and name not in LEARN[phase.learn]:
            raise ConfigError(f"{key}.{name}={value} has no effect with learn={phase.learn}; remove it.")
    for name, allowed in REQUIRED.get(phase.learn, {}).items():
        value = getattr(phase, name)
        given = value > 0 if isinstance(value, int | float) else bool(value)
        check(given, f"{key}.{name}", value, f"{allowed} with learn={phase.learn}")
    if phase.last_blocks and phase.blocks:
        raise ConfigError(
            f"{key}.last_blocks={last} and .blocks={phase.blocks} exclude each other; remove one of them."
        )


@dataclass(slots=True)
class BatchNormPolicyConfig:
    """What changes in the BatchNorm layers of trainable blocks. In frozen blocks nothing changes."""

    # True: training uses batch statistics and updates the running statistics. False: the layers stay in eval mode.
    update_running_statistics: bool = MISSING
    # True: scale and bias are trainable. False: they are frozen.
    train_affine_parameters: bool = MISSING
