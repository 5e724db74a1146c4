"""The schema of ``recipe``: the table from which every setting that is ``auto`` gets its value."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.errors import ConfigError, nearest

# The value of a setting that the recipe decides.
AUTO = "auto"


@dataclass(slots=True)
class BudgetConfig:
    """The length of a phase: as many epochs as the updates take, but never fewer or more than these."""

    updates: int = MISSING
    min_epochs: int = MISSING
    max_epochs: int = MISSING

    def __post_init__(self) -> None:
        check(self.updates >= 1, "recipe.budgets: updates", self.updates, "at least 1")
        allowed = 1 <= self.min_epochs <= self.max_epochs
        check(allowed, "recipe.budgets: min_epochs", self.min_epochs, f"from 1 to max_epochs={self.max_epochs}")


@dataclass(slots=True)
class BudgetsConfig:
    """A budget for each kind of phase: the head alone, a part of the network, all of it."""

    head: BudgetConfig = MISSING
    part: BudgetConfig = MISSING
    all: BudgetConfig = MISSING


@dataclass(slots=True)
class RatesConfig:
    """Rates and weight decay, with the names that they have in ``optimizer``."""

    head_lr: float = MISSING
    backbone_lr: float = MISSING
    block_decay: float = MISSING
    weight_decay: float = MISSING


@dataclass(slots=True)
class FamilyRatesConfig:
    """Rates for each family of networks."""

    cnn: RatesConfig = MISSING
    convnext: RatesConfig = MISSING
    vit: RatesConfig = MISSING


@dataclass(slots=True)
class OptimizerRatesConfig:
    """Rates for each optimizer."""

    adamw: FamilyRatesConfig = MISSING
    sgd: FamilyRatesConfig = MISSING
    lion: FamilyRatesConfig = MISSING
    adan: FamilyRatesConfig = MISSING


@dataclass(slots=True)
class FamilyBudgetsConfig:
    """Budgets for each family of networks."""

    cnn: BudgetsConfig = MISSING
    convnext: BudgetsConfig = MISSING
    vit: BudgetsConfig = MISSING


@dataclass(slots=True)
class StrengthConfig:
    """The augmentation of a kind of phase: one for up to ``small_up_to`` training images, one for more."""

    small: str = MISSING
    large: str = MISSING


@dataclass(slots=True)
class AugmentRuleConfig:
    """Names of ``augment.strengths``, which ``augment=auto`` has, for each kind of phase."""

    small_up_to: int = MISSING
    head: StrengthConfig = MISSING
    part: StrengthConfig = MISSING
    all: StrengthConfig = MISSING

    def check(self, strengths: Collection[str]) -> None:
        """Check that every name is one of these.

        Raises:
            ConfigError: if there is another.
        """
        for kind in ("head", "part", "all"):
            strength = getattr(self, kind)
            for size in ("small", "large"):
                name = getattr(strength, size)
                if name not in strengths:
                    raise ConfigError(
                        f"recipe.augment.{kind}.{size}={name}: there is no such strength."
                        f"{nearest(name, list(strengths))} Allowed are {', '.join(strengths)}."
                    )


@dataclass(slots=True)
class TimeConfig:
    """How ``train.max_minutes`` is shared out. Seconds of steps and validation are measured, not set here."""

    # The cost of an epoch of each kind of phase relative to the others, until it has been measured.
    head_cost: float = MISSING
    part_cost: float = MISSING
    all_cost: float = MISSING
    # A phase is begun only if it has time for so many updates.
    min_updates: int = MISSING
    # Seconds for plots, the page and the end of the process: a constant, and a multiple of the seconds from the start
    # of the process to the beginning of the run, which measure how fast the machine is.
    end_seconds: float = MISSING
    end_starts: float = MISSING
    # Share of the time that stays unused, because steps do not all take equally long.
    spare: float = MISSING
    # Share of the time, from the start on, after which the audit aligns no further pairs of pictures.
    audit: float = MISSING

    def __post_init__(self) -> None:
        for key in ("spare", "audit"):
            share = getattr(self, key)
            check(0 <= share <= 1, f"recipe.time.{key}", share, "from 0 to 1")


@dataclass(slots=True)
class RecipeConfig:
    """What ``auto`` comes to. A value that is given in place of ``auto`` always wins."""

    budgets: FamilyBudgetsConfig = MISSING
    rates: OptimizerRatesConfig = MISSING
    augment: AugmentRuleConfig = MISSING
    time: TimeConfig = MISSING
