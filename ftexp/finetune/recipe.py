"""What every ``auto`` of a configuration comes to: the rules in ``recipe``, for a network and its training set."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ftexp.config import AugmentConfig, Config, PhaseConfig
from ftexp.config.optim import RATES
from ftexp.config.recipe import AUTO, BudgetConfig
from ftexp.config.train import AutoAugmentConfig
from ftexp.models.blocks import Network
from ftexp.models.family import Family, family_of

log = logging.getLogger(__name__)

Kind = Literal["head", "part", "all"]


@dataclass(frozen=True, slots=True)
class Decision:
    """The value of a setting that was ``auto``.

    Attributes:
        key: its full name, such as ``optimizer.head_lr`` or ``stage.phases.0.epochs``.
        value: a number; of ``stage.phases.N.augment``, the settings of the augmentation.
        reason: the rule that gave the value.
    """

    key: str
    value: Any
    reason: str


def kind_of(phase: PhaseConfig) -> Kind:
    """What a phase trains: the head alone, a part of the network, or all of it."""
    return "head" if phase.learn == "head" else "all" if phase.learn == "all" else "part"


def decide(config: Config, family: Family, num_samples: int, updates_per_epoch: int) -> tuple[Decision, ...]:
    """Decide every setting that is ``auto``.

    Args:
        config: the configuration as the user gave it.
        family: the family of the network.
        num_samples: number of training images.
        updates_per_epoch: optimizer updates in an epoch.
    """
    decisions = list(_rates(config, family))
    for number, phase in enumerate(config.stage.phases):
        key, kind = f"stage.phases.{number}", kind_of(phase)
        if phase.epochs == AUTO:
            budget: BudgetConfig = getattr(getattr(config.recipe.budgets, family), kind)
            reason = (
                f"{budget.updates} updates at {updates_per_epoch} in an epoch, but {budget.min_epochs} to "
                f"{budget.max_epochs} epochs (recipe.budgets.{family}.{kind})"
            )
            decisions.append(Decision(f"{key}.epochs", _epochs(budget, updates_per_epoch), reason))
        if isinstance(config.augment, AutoAugmentConfig):
            rule = config.recipe.augment
            size = "small" if num_samples <= rule.small_up_to else "large"
            name = getattr(getattr(rule, kind), size)
            settings = asdict(config.augment.settled(config.augment.strengths[name]))
            reason = f"{name}, for {num_samples:,} training images (recipe.augment.{kind}.{size})"
            decisions.append(Decision(f"{key}.augment", settings, reason))
    return tuple(decisions)


def foreseen(config: Config, network: Network | None = None) -> Config:
    """The configuration with a value in place of every ``auto``, before the training set is known.

    Epochs are the most that there can be. Without a network, rates are those of a ``cnn``.
    """
    return settle(config, decide(config, family_of(network.module) if network else "cnn", 0, 1))


def settle(config: Config, decisions: Sequence[Decision]) -> Config:
    """Put decisions into the configuration; its optimizer, its augmentation and its phases have no ``auto`` afterwards.

    ``stage.epochs`` stays as it was: it is what the phases referred to.
    """
    values = {decision.key: decision.value for decision in decisions}
    rates = {key: values[f"optimizer.{key}"] for key in RATES if f"optimizer.{key}" in values}
    phases = [_settled(phase, f"stage.phases.{i}", values) for i, phase in enumerate(config.stage.phases)]
    augment = (
        config.augment.settled(AugmentConfig()) if isinstance(config.augment, AutoAugmentConfig) else config.augment
    )
    stage, optimizer = replace(config.stage, phases=phases), replace(config.optimizer, **rates)
    return replace(config, stage=stage, optimizer=optimizer, augment=augment)


def log_decisions(config: Config, decisions: Sequence[Decision]) -> None:
    """One line for the rates, and one for each phase."""
    rates = [decision for decision in decisions if decision.key.startswith("optimizer.")]
    if rates:
        listed = "  ".join(f"{decision.key.partition('.')[2]} {decision.value:g}" for decision in rates)
        log.info("recipe  %s: %s", listed, rates[0].reason)
    for number, phase in enumerate(config.stage.phases):
        for decision in decisions:
            if decision.key == f"stage.phases.{number}.epochs":
                log.info("recipe  %s: %d epochs, for %s", phase.name, decision.value, decision.reason)
            if decision.key == f"stage.phases.{number}.augment":
                log.info("recipe  %s: augmentation %s", phase.name, decision.reason)


def auto_keys(config: Config) -> Iterator[str]:
    """The full names of all numbers that are ``auto``."""
    yield from (f"optimizer.{key}" for key in RATES if getattr(config.optimizer, key) == AUTO)
    yield from (f"stage.phases.{i}.epochs" for i, phase in enumerate(config.stage.phases) if phase.epochs == AUTO)


def _rates(config: Config, family: Family) -> Iterator[Decision]:
    name = config.optimizer.name
    for key in RATES:
        if getattr(config.optimizer, key) == AUTO:
            value = getattr(getattr(getattr(config.recipe.rates, name), family), key)
            yield Decision(f"optimizer.{key}", value, f"{name} on a {family} (recipe.rates.{name}.{family})")


def _epochs(budget: BudgetConfig, updates_per_epoch: int) -> int:
    return min(max(math.ceil(budget.updates / updates_per_epoch), budget.min_epochs), budget.max_epochs)


def _settled(phase: PhaseConfig, key: str, values: Mapping[str, Any]) -> PhaseConfig:
    augment = {**values.get(f"{key}.augment", {}), **phase.augment}
    return replace(phase, epochs=values.get(f"{key}.epochs", phase.epochs), augment=augment)
