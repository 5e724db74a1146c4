"""Learning-rate schedules: one factor for all parameter groups, so that the ratios of their rates stay constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer

from ftexp.config import PlateauConfig, SchedulerConfig
from ftexp.errors import ConfigError

# one_cycle begins at this share of the highest rate, as torch's OneCycleLR does.
ONE_CYCLE_START = 1 / 25


@dataclass(frozen=True, slots=True)
class Span:
    """The length of a phase.

    Attributes:
        epochs: number of epochs.
        steps_per_epoch: optimizer updates (not batches) per epoch.
        num_samples: number of training images.
        fitted: optimizer updates in the whole phase, if a time limit ends it within an epoch; None: all of its epochs.
    """

    epochs: int
    steps_per_epoch: int
    num_samples: int
    fitted: int | None = None

    @property
    def steps(self) -> int:
        """Optimizer updates in the whole phase."""
        return self.epochs * self.steps_per_epoch if self.fitted is None else self.fitted

    def fitted_to(self, updates: int) -> Span:
        """The same phase with another number of updates."""
        return Span(math.ceil(updates / self.steps_per_epoch), self.steps_per_epoch, self.num_samples, updates)


class Schedule:
    """Sets the learning rates of an optimizer during one phase, from its first step on.

    The rate of every group is its initial rate, multiplied by the schedule's factor.

    Args:
        config: the settings of the schedule.
        optimizer: the optimizer, with the initial rates in its groups.
        span: the length of the phase.
    """

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer, span: Span) -> None:
        self._config = config
        self._span = span
        self._optimizer = optimizer  # not its groups: loading a state dict replaces them
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._tick = 0
        self._scale = 1.0
        self._plateau = Plateau(config.factor, config.patience) if isinstance(config, PlateauConfig) else None
        self._apply()

    def after_step(self) -> None:
        """Call this after every update."""
        if self._config.interval == "step":
            self._tick += 1
            self._apply()

    def after_epoch(self, value: float) -> None:
        """Call this after every epoch with the validation metric, where larger is better."""
        if self._config.interval == "epoch":
            self._tick += 1
        if self._plateau is not None:
            lower = max(self._scale * self._plateau.factor_after(value), self._config.floor)
            self._scale = min(self._scale, lower)  # a recovery may have set it below the floor
        self._apply()

    @property
    def tick(self) -> int:
        """Number of steps or epochs so far, depending on the schedule's interval."""
        return self._tick

    def restart(self, tick: int, scale: float) -> None:
        """Go back to an earlier tick, and multiply all later rates by ``scale``."""
        self._tick = tick
        self._scale *= scale
        self._apply()

    def fit_to(self, updates: int) -> None:
        """Spread the schedule over another number of updates of the whole phase; what is done counts."""
        self._span = self._span.fitted_to(updates)
        self._apply()

    def state_dict(self) -> dict[str, float]:
        """The state of the schedule as plain data."""
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
    """Lowers the rates when a metric has not improved for some epochs.

    Args:
        factor: the rates are multiplied by this factor.
        patience: number of epochs without improvement after which they are lowered.
    """

    def __init__(self, factor: float, patience: int) -> None:
        self._factor = factor
        self._patience = patience
        self._best = -math.inf
        self._waited = 0

    def factor_after(self, value: float) -> float:
        """The factor on the rates after an epoch with this value of the metric; 1 unless the patience has run out."""
        if value > self._best:
            self._best, self._waited = value, 0
            return 1.0
        self._waited += 1
        if self._waited <= self._patience:
            return 1.0
        self._waited = 0
        return self._factor

    def state_dict(self) -> dict[str, float]:
        """The best value, and the number of epochs since then."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from where ``state_dict`` was called."""
        self._best, self._waited = state["best"], int(state["waited"])


def schedule_factor(config: SchedulerConfig, tick: int, span: Span) -> float:
    """The factor on the rate of every group; for plateau, without its reductions.

    During the warmup the factor rises linearly (one_cycle: along half a cosine), and it is 1 right after it. Then it
    falls as the schedule's name says, and is ``floor`` at the end of the phase.

    Args:
        config: the settings of the schedule.
        tick: number of steps or epochs so far, depending on ``config.interval``.
        span: the length of the phase.

    Raises:
        ConfigError: if the warmup is as long as the phase.

    Source: linear warmup (Goyal et al., 2017), cosine decay (Loshchilov & Hutter, 2017), one cycle (Smith & Topin,
    2018; of the rate alone), staircase ``bit`` (Kolesnikov et al., 2020, arXiv 1912.11370; bit_hyperrule.py).
    """
    total = span.steps if config.interval == "step" else span.epochs
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
    """Length of the warmup in ticks, for all ways to set it.

    Args:
        config: the settings of the schedule.
        span: the length of the phase.
        total: the length of the phase in ticks.

    Raises:
        ConfigError: if the warmup is as long as the phase, so that the rate would never reach the configured value.
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
    if span.fitted is not None:  # a warmup of given length may be longer than the time allows
        return min(round(ticks), total // 2)
    if round(ticks) >= total:
        steps = span.epochs * span.steps_per_epoch
        epochs = "1 epoch" if span.epochs == 1 else f"{span.epochs} epochs"
        length = f"{epochs} ({steps} {'step' if steps == 1 else 'steps'})"
        raise ConfigError(f"scheduler.{key} is too long: the phase lasts {length}. Use a shorter warmup.")
    return round(ticks)


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _bit_rule(num_samples: int) -> tuple[float, float, float, float]:
    """The end of the warmup, and the three steps at which the rate drops to a tenth, as shares of the phase.

    They depend on the size of the training set. BiT's own runs took 500 steps of 512 images for fewer than 20,000
    training images, 10,000 for fewer than 500,000, else 20,000.
    """
    if num_samples < 20_000:
        return 0.2, 0.4, 0.6, 0.8
    return 0.05 if num_samples < 500_000 else 0.025, 0.3, 0.6, 0.9


# Name -> function from the progress since the warmup (0 to 1) to the factor (1 to 0), before ``floor`` is applied.
FALLS: dict[str, Callable[[float], float]] = {
    "warmup_cosine": _cosine,
    "one_cycle": _cosine,
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda _: 1.0,
    "plateau": lambda _: 1.0,
}
