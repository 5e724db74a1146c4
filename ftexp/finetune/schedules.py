"""Learning-rate schedules as one factor for all groups, so that their ratios never change."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer

from ftexp.config import PlateauConfig, SchedulerConfig
from ftexp.errors import ConfigError

# Share of its highest rate at which one_cycle begins: torch's OneCycleLR has the same.
ONE_CYCLE_START = 1 / 25


@dataclass(frozen=True, slots=True)
class Span:
    """The length of a phase.

    Attributes:
        steps_per_epoch: updates of the optimizer, not batches.
        num_samples: training images.
    """

    epochs: int
    steps_per_epoch: int
    num_samples: int

    @property
    def steps(self) -> int:
        """Updates of the whole phase."""
        return self.epochs * self.steps_per_epoch


class Schedule:
    """Sets the rates of an optimizer over exactly one phase, from its first step on.

    Every group has the rate it was built with, times the factor.
    """

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer, span: Span) -> None:
        self._config = config
        self._span = span
        self._optimizer = optimizer  # not its groups: loading its state puts others in their place
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._tick = 0
        self._scale = 1.0
        self._plateau = Plateau(config.factor, config.patience) if isinstance(config, PlateauConfig) else None
        self._apply()

    def after_step(self) -> None:
        """To be called after every update."""
        if self._config.interval == "step":
            self._tick += 1
            self._apply()

    def after_epoch(self, value: float) -> None:
        """To be called after every epoch with the validation metric, of which more is better."""
        if self._config.interval == "epoch":
            self._tick += 1
        if self._plateau is not None:
            lower = max(self._scale * self._plateau.factor_after(value), self._config.floor)
            self._scale = min(self._scale, lower)  # a recovery may have left it below the floor
        self._apply()

    @property
    def tick(self) -> int:
        """Steps or epochs done so far, as the schedule's interval says."""
        return self._tick

    def restart(self, tick: int, scale: float) -> None:
        """Go back to an earlier tick, with all rates from there on multiplied by ``scale``."""
        self._tick = tick
        self._scale *= scale
        self._apply()

    def state_dict(self) -> dict[str, float]:
        """Where the phase stands, as plain data."""
        waiting = self._plateau.state_dict() if self._plateau else {}
        return {"tick": self._tick, "scale": self._scale, **waiting}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from where ``state_dict`` was called."""
        self._tick, self._scale = int(state["tick"]), state["scale"]
        if self._plateau:
            self._plateau.load_state_dict(state)
        self._apply()

    def _apply(self) -> None:
        factor = self._scale * schedule_factor(self._config, self._tick, self._span)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor


class Plateau:
    """Asks for lower rates whenever a metric has not become better for a while.

    Args:
        factor: what the rates are multiplied by.
        patience: epochs without a better value that are waited for.
    """

    def __init__(self, factor: float, patience: int) -> None:
        self._factor = factor
        self._patience = patience
        self._best = -math.inf
        self._waited = 0

    def factor_after(self, value: float) -> float:
        """The factor on the rates after an epoch with this value: 1 but where the patience has run out."""
        if value > self._best:
            self._best, self._waited = value, 0
            return 1.0
        self._waited += 1
        if self._waited <= self._patience:
            return 1.0
        self._waited = 0
        return self._factor

    def state_dict(self) -> dict[str, float]:
        """The best value, and how long there has been no better one."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from where ``state_dict`` was called."""
        self._best, self._waited = state["best"], int(state["waited"])


def schedule_factor(config: SchedulerConfig, tick: int, span: Span) -> float:
    """The factor on every group's rate; for a plateau, as long as there is none.

    Over the warmup it climbs in equal steps (one_cycle: along half a cosine) and is 1 right after it; then it falls as
    its name says, to ``floor`` at the end of the phase, where it remains.

    Args:
        tick: steps or epochs done so far, from 0, as ``config.interval`` says.

    Raises:
        ConfigError: if the warmup is as long as the phase.

    Source: linear warmup (Goyal et al., 2017), cosine decay (Loshchilov & Hutter, 2017), one cycle (Smith & Topin,
    2018; of the rate alone), staircase ``bit`` (Kolesnikov et al., 2020, arXiv 1912.11370; bit_hyperrule.py).
    """
    total = span.epochs * (span.steps_per_epoch if config.interval == "step" else 1)
    warmup = _warmup_ticks(config, span, total)
    if tick < warmup:
        if config.name == "one_cycle":
            return 1.0 - (1.0 - ONE_CYCLE_START) * _cosine(tick / warmup)
        return (tick + 1) / (warmup + 1)
    if config.name == "bit":
        return 0.1 ** sum(tick > drop * total for drop in _bit_rule(span.num_samples)[1:])
    progress = min(1.0, (tick - warmup) / max(1, total - warmup))
    return config.floor + (1.0 - config.floor) * FALLS[config.name](progress)


def _warmup_ticks(config: SchedulerConfig, span: Span, total: int) -> int:
    """Ticks of the warmup, however its length is given.

    Args:
        total: ticks of the phase.

    Raises:
        ConfigError: if it is as long as the phase, so that the rate would never be the one that was set.
    """
    if config.name == "bit":
        return round(_bit_rule(span.num_samples)[0] * total)
    ticks_per_epoch = span.steps_per_epoch if config.interval == "step" else 1
    if config.warmup_steps is not None:
        key, ticks = f"warmup_steps={config.warmup_steps}", config.warmup_steps / span.steps_per_epoch * ticks_per_epoch
    elif config.warmup_epochs is not None:
        key, ticks = f"warmup_epochs={config.warmup_epochs:g}", config.warmup_epochs * ticks_per_epoch
    else:
        key, ticks = f"warmup={config.warmup:g}" if config.warmup else "", (config.warmup or 0.0) * total
    if round(ticks) >= total:
        steps = span.epochs * span.steps_per_epoch
        raise ConfigError(f"scheduler.{key} is too long: a phase has {span.epochs} epochs, {steps} steps. Use less.")
    return round(ticks)


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _bit_rule(num_samples: int) -> tuple[float, float, float, float]:
    """The end of the warmup and the three drops to a tenth, as shares of the phase, by the size of the training set.

    The lengths of BiT's own runs were 500 steps of 512 images below 20,000 images, 10,000 below 500,000, else 20,000.
    """
    if num_samples < 20_000:
        return 0.2, 0.4, 0.6, 0.8
    return 0.05 if num_samples < 500_000 else 0.025, 0.3, 0.6, 0.9


# Name -> what is left of the way from 1 to the floor, at a share of the way from the warmup to the end.
FALLS: dict[str, Callable[[float], float]] = {
    "warmup_cosine": _cosine,
    "one_cycle": _cosine,
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda _: 1.0,
    "plateau": lambda _: 1.0,
}
