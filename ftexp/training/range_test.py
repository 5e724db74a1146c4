"""The learning-rate range test: rates that grow from step to step, and the loss they lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from torch.optim import Optimizer

from ftexp.config import Config
from ftexp.data.splits import Splits
from ftexp.errors import DivergedError
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import build_param_groups
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import HEAD, Network
from ftexp.models.eval_caches import load_weights
from ftexp.training.batches import Batches
from ftexp.training.inputs import InputSource
from ftexp.training.loop import Step
from ftexp.training.losses import build_loss
from ftexp.training.runtime import Runtime, seed_phase

LOWEST, HIGHEST = 1e-6, 10.0
NUM_STEPS = 120
# Steps at the lowest rate before that, until the running mean no longer hangs on single batches.
NUM_SETTLING = 20
# A loss that changes by less than this share is noise.
NOISE = 0.05
# The mean of the losses forgets this much less than everything at each step.
SMOOTHING = 0.9
# The test ends where the mean loss is this many times its lowest so far.
DIVERGED = 4.0


@dataclass(frozen=True, slots=True)
class RangeTest:
    """What one test saw.

    Attributes:
        key: the setting that it is about, such as ``optimizer.head_lr``.
        rates: growing by the same factor from step to step.
        losses: running means of the training loss, one per rate, all finite.
    """

    key: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def suggestion(self) -> float | None:
        """The rate by which half of the fall to the lowest loss is done: well below those at which it rises again.

        Where the loss has no room to fall, a tenth of the rate that harms it; None where it does neither.
        """
        lowest = int(np.argmin(self.losses))
        start, end = self.losses[0], self.losses[lowest]
        if end < (1 - NOISE) * start:
            above = [i for i in range(lowest) if self.losses[i] > (start + end) / 2]
            return self.rates[above[-1] + 1]
        pairs = zip(self.rates[lowest:], self.losses[lowest:], strict=True)
        harmful = [rate for rate, loss in pairs if loss > (1 + NOISE) * end]
        return harmful[0] / 10 if harmful else None


def find_ranges(
    config: Config, network: Network, splits: Splits, phase: Phase, runtime: Runtime
) -> tuple[RangeTest, ...]:
    """Test the head's rate, then, on a head trained at the rate found, the backbone's; changes the weights.

    The backbone's blocks keep the ratios of their rates, and the head rests while theirs grow.

    Args:
        phase: says which blocks learn, and how they are trained.

    Source: Smith, 2017, "Cyclical learning rates for training neural networks".
    """
    start = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    head_phase = replace(phase, learning=(HEAD,))
    with _training(config, network, splits, head_phase, runtime) as (optimizer, step, batches):
        head = sweep_rates("optimizer.head_lr", step, optimizer, batches, [1.0] * len(optimizer.param_groups))
    if phase.learning == (HEAD,):
        return (head,)
    load_weights(network.module, start)
    with _training(config, network, splits, head_phase, runtime) as (optimizer, step, batches):
        for group in optimizer.param_groups:
            group["lr"] = head.suggestion or group["lr"]
        for images, labels in islice(_endless(batches), NUM_STEPS):
            step.backward(images, labels)
            step.update()
    with _training(config, network, splits, phase, runtime) as (optimizer, step, batches):
        ratios = [
            0.0 if group["block"] == HEAD else group["lr"] / phase.optimizer.backbone_lr
            for group in optimizer.param_groups
        ]
        return head, sweep_rates("optimizer.backbone_lr", step, optimizer, batches, ratios)


def sweep_rates(key: str, step: Step, optimizer: Optimizer, batches: Batches, ratios: Sequence[float]) -> RangeTest:
    """Take steps at rates from ``LOWEST`` to ``HIGHEST`` until the loss diverges.

    Args:
        ratios: of each of the optimizer's groups to the rate that is tested.

    Raises:
        DivergedError: if the loss is not finite from the start.
    """
    rates: list[float] = []
    losses: list[float] = []
    total = weight = loss = 0.0
    for number, (images, labels) in enumerate(islice(_endless(batches), NUM_SETTLING + NUM_STEPS), -NUM_SETTLING):
        rate = LOWEST * (HIGHEST / LOWEST) ** (max(0, number) / (NUM_STEPS - 1))
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        loss = step.backward(images, labels).mean.item()
        total, weight = SMOOTHING * total + loss, SMOOTHING * weight + 1
        if not math.isfinite(loss) or (losses and total / weight > DIVERGED * min(losses)):
            break
        if number >= 0:
            rates.append(rate)
            losses.append(total / weight)
        step.update()
    if not rates:
        raise DivergedError(
            f"The training loss is not finite ({loss:g}) before {key} was raised above {LOWEST:g}, so there is nothing "
            "to learn from other rates. Look at the images and at the weights (model.weights)."
        )
    return RangeTest(key, tuple(rates), tuple(losses))


@contextmanager
def _training(
    config: Config, network: Network, splits: Splits, phase: Phase, runtime: Runtime
) -> Iterator[tuple[Optimizer, Step, Batches]]:
    """A phase that is ready for its first step."""
    open_blocks(network, phase)
    groups = build_param_groups(network, phase)
    optimizer = build_optimizer(phase.optimizer, groups, runtime.device)
    with InputSource(config, network, splits, runtime) as source:
        set_train_mode(network, phase)
        inputs = source.for_phase(phase)
        loss_fn = build_loss(config.train, inputs.class_weights).to(runtime.device)
        set_train_mode(network, phase)  # cutting the network in two left it in eval mode
        seed_phase(config.runtime.seed, 0, runtime.ranks)
        yield (
            optimizer,
            Step(inputs.forward, optimizer, loss_fn, runtime, clip_norm=config.train.clip_norm),
            inputs.train,
        )


def _endless(batches: Batches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return (batch for epoch in count(1) for batch in batches.epoch(epoch))
