"""Learning-rate schedules as one factor for all groups, so that their ratios never change."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ftexp.config import SchedulerConfig


def schedule_factor(config: SchedulerConfig, tick: int, total: int) -> float:
    """The factor on every group's rate.

    Over the first ``warmup`` share of the ticks it climbs in equal steps and is 1 right after them; then it
    stays (constant) or falls along half a cosine to ``floor`` at ``total``, where it remains.

    Args:
        tick: steps or epochs done so far, from 0.
        total: steps or epochs of the phase.

    Source: linear warmup (Goyal et al., 2017), cosine decay (Loshchilov & Hutter, 2017).
    """
    warmup = round(config.warmup * total)
    if tick < warmup:
        return (tick + 1) / (warmup + 1)
    if config.name == "constant":
        return 1.0
    progress = min(1.0, (tick - warmup) / max(1, total - warmup))
    return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_scheduler(config: SchedulerConfig, optimizer: Optimizer, *, epochs: int, steps_per_epoch: int) -> LambdaLR:
    """The schedule over exactly one phase; it ticks after every step or every epoch, as configured."""
    total = epochs * steps_per_epoch if config.interval == "step" else epochs
    return LambdaLR(optimizer, lambda tick: schedule_factor(config, tick, total))
