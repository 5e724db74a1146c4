"""The schema of ``optimizer`` and ``scheduler``.

To add an optimizer: a dataclass and its name in ``OPTIMIZERS`` here, its values in ``conf/optimizer``, and an entry in
``BUILDERS`` of ``ftexp/finetune/optimizers.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.config.option_name import check_name
from ftexp.errors import ConfigError

# Settings of an optimizer that may be `auto`.
RATES = ("head_lr", "backbone_lr", "block_decay", "weight_decay")


@dataclass(slots=True)
class OptimizerConfig:
    """The optimizer, with a learning rate for each block.

    It is ``head_lr`` for the head, ``backbone_lr`` for the last block, and that rate times ``block_decay`` for each
    block further from the head. Rates and ``weight_decay`` may be ``auto``: they follow from the family of the network,
    by ``recipe.rates``.
    """

    # Whether the optimizer treats the roles of parameters differently (ftexp/finetune/decay.py). If it does, all
    # parameters of a group have the same role.
    by_role: ClassVar[bool] = False

    # The name of the option.
    name: str = MISSING
    # The rates of the head and of the block next to it, and the factor from each block to the one below. auto: by the
    # family of the network.
    head_lr: int | float | str = MISSING
    backbone_lr: int | float | str = MISSING
    block_decay: int | float | str = 1.0
    # Block name -> its learning rate, which takes precedence over the rates above.
    block_lrs: dict[str, float] = field(default_factory=dict)
    # The decay of weight matrices; biases and the parameters of normalisation layers have none.
    weight_decay: int | float | str = 0.0

    def __post_init__(self) -> None:
        check_name("optimizer", self.name, type(self), OPTIMIZERS)
        _check_number(self, "head_lr", lambda rate: rate > 0, "auto, or above 0")
        wanted = "auto, or above 0 (stage=head freezes the backbone)"
        _check_number(self, "backbone_lr", lambda rate: rate > 0, wanted)
        _check_number(self, "block_decay", lambda decay: 0 < decay <= 1, "auto, or above 0 and at most 1")
        _check_number(self, "weight_decay", lambda decay: decay >= 0, "auto, or 0 or above")
        for block, rate in self.block_lrs.items():
            check(rate > 0, f"optimizer.block_lrs.{block}", rate, "above 0")

    def number(self, key: str) -> float:
        """The value of one of ``RATES``, when ``auto`` has been replaced by a number."""
        value = getattr(self, key)
        assert not isinstance(value, str), f"{key}=auto is replaced before anything is trained"
        return float(value)


@dataclass(slots=True)
class AdamWConfig(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    name: str = "adamw"
    # The decay of the averages of the gradient and of its square, and what is added to the root of the latter.
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_betas(self.betas, 2, "two")
        check(self.eps > 0, "optimizer.eps", self.eps, "above 0")


@dataclass(slots=True)
class LionConfig(OptimizerConfig):
    """Updates by the sign of a momentum (Chen et al., 2023). It needs learning rates 3 to 10 times smaller than AdamW,
    and a weight decay larger by the same factor.
    """

    name: str = "lion"
    # The share of the momentum in an update, and the decay of the momentum.
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_betas(self.betas, 2, "two")


@dataclass(slots=True)
class AdanConfig(OptimizerConfig):
    """Adam with a Nesterov momentum that uses the differences between gradients (Xie et al., 2022)."""

    name: str = "adan"
    # The decay of the averages of the gradient, of its difference from the one before, and of the square of both; and
    # what is added to the root of the latter.
    betas: list[float] = field(default_factory=lambda: [0.98, 0.92, 0.99])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check_betas(self.betas, 3, "three")
        check(self.eps > 0, "optimizer.eps", self.eps, "above 0")


@dataclass(slots=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    name: str = "sgd"
    # The share of the last update in the next one, and whether the gradient is looked up there (Nesterov).
    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optimizer.nesterov=true needs optimizer.momentum above 0; set optimizer.nesterov=false.")


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "adamw": AdamWConfig,
    "sgd": SgdConfig,
    "lion": LionConfig,
    "adan": AdanConfig,
}


def _check_number(config: OptimizerConfig, key: str, allows: Callable[[float], bool], wanted: str) -> None:
    value = getattr(config, key)
    number = isinstance(value, int | float) and not isinstance(value, bool) and allows(value)
    check(number or value == "auto", f"optimizer.{key}", value, wanted)


def _check_betas(betas: list[float], count: int, word: str) -> None:
    allowed = len(betas) == count and all(0 <= beta < 1 for beta in betas)
    check(allowed, "optimizer.betas", betas, f"{word} numbers, each at least 0 and below 1")


@dataclass(slots=True)
class SchedulerConfig:
    """The factor on the learning rates of all parameter groups, over the steps of one phase."""

    # warmup_cosine and linear fall to the floor along a cosine or a line. one_cycle rises and falls along cosines.
    # constant stays at 1. plateau falls when the validation metric stops improving. bit falls to a tenth three times,
    # at steps that follow from the size of the training set.
    name: Literal["warmup_cosine", "linear", "one_cycle", "constant", "plateau", "bit"] = MISSING
    # The length of the warmup, in which the factor rises to 1: as a fraction of the phase, in steps, or in epochs.
    warmup: float | None = None
    warmup_steps: int | None = None
    warmup_epochs: float | None = None
    # The factor at the end of the phase.
    floor: float = 0.0
    # When the factor changes: after every optimizer step, or after every epoch.
    interval: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if (self.name == "plateau") != isinstance(self, PlateauConfig):
            raise ConfigError(f"scheduler.name={self.name} does not choose a scheduler. Use scheduler={self.name}.")
        share, steps, epochs = self.warmup, self.warmup_steps, self.warmup_epochs
        fraction = share is None or 0 <= share < 1
        check(fraction, "scheduler.warmup", share, "a fraction of the phase: at least 0 and below 1")
        check(steps is None or steps >= 0, "scheduler.warmup_steps", steps, "0 or above")
        check(epochs is None or epochs >= 0, "scheduler.warmup_epochs", epochs, "0 or above")
        check(0 <= self.floor <= 1, "scheduler.floor", self.floor, "a fraction of each group's rate: 0 to 1")
        given = {"warmup": share, "warmup_steps": steps, "warmup_epochs": epochs}
        settings = [f"scheduler.{key}={value:g}" for key, value in given.items() if value is not None]
        if len(settings) > 1:
            raise ConfigError(f"{' and '.join(settings)} each set the length of the warmup; set all but one to null.")
        if self.name == "constant" and self.floor != 1:
            raise ConfigError(f"scheduler.floor={self.floor} has no effect with scheduler=constant; remove it.")
        if self.name == "bit" and (settings or self.floor > 0):
            settings += [f"scheduler.floor={self.floor:g}"] if self.floor > 0 else []
            raise ConfigError(f"{settings[0]} has no effect with scheduler=bit, which sets it by a rule; remove it.")


@dataclass(slots=True)
class PlateauConfig(SchedulerConfig):
    """Lower the learning rates whenever the validation metric has stopped improving."""

    # The factor that the learning rates are multiplied by.
    factor: float = 0.1
    # How many epochs without an improvement to wait for.
    patience: int = 3

    def __post_init__(self) -> None:
        SchedulerConfig.__post_init__(self)
        check(0 < self.factor < 1, "scheduler.factor", self.factor, "above 0 and below 1")
        check(self.patience >= 0, "scheduler.patience", self.patience, "0 or above")
