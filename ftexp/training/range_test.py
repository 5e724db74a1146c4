"""The learning-rate range test: rates that grow from step to step, and the loss they lead to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice

import numpy as np
import torch
from torch.optim import Optimizer

from ftexp.config import Config, OptimizerConfig
from ftexp.data.splitting.splits import Splits
from ftexp.errors import DivergedError
from ftexp.finetune.freezing import set_train_mode
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.phases import Phase, deepest
from ftexp.machine.runtime import Runtime, seed_phase
from ftexp.models.blocks import HEAD, Network
from ftexp.models.eval_caches import load_weights
from ftexp.training.inputs.batches import Batches
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.loop import Step, completes_update
from ftexp.training.losses import LossSum
from ftexp.training.phase_state import build_step, open_phase
from ftexp.training.starting_weights import backbone_state

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
        phase: whose own value of the setting, under ``stage.phases``, it is about; None: the setting of all phases.
    """

    key: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    phase: str | None = None

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
    config: Config, network: Network, splits: Splits, phases: Sequence[Phase], runtime: Runtime
) -> tuple[RangeTest, ...]:
    """Test the head's rate, then, on a head trained at the rate found, the backbone's; changes the weights.

    The head's is tested as in the first phase, which it begins with, and the backbone's as in the phase in which most
    blocks learn. What is tested is the setting, which a phase multiplies by its ``lr_factor``. The backbone's blocks
    keep the ratios of their rates; the head, and blocks with rates of their own (``block_lrs``), rest meanwhile.

    Source: Smith, 2017, "Cyclical learning rates for training neural networks".
    """
    weights = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    starting_weights = backbone_state(network) if config.train.needs_starting_weights else {}
    training = partial(_training, config, network, splits, runtime, starting_weights)
    first, deep = phases[0], deepest(phases)
    head_phase = replace(first, learning=(HEAD,))
    head_key = f"optimizer.block_lrs.{HEAD}" if HEAD in first.optimizer.block_lrs else "optimizer.head_lr"
    with training(head_phase) as (optimizer, updates):
        head = sweep_rates(head_key, updates, optimizer, [first.lr_factor] * len(optimizer.param_groups))
    head = replace(head, phase=_owner(first, _head_rate(first.optimizer), _head_rate(config.optimizer)))
    blocks = [block for block in deep.learning if block != HEAD and block not in deep.optimizer.block_lrs]
    if not blocks:
        return (head,)
    load_weights(network.module, weights)
    with training(head_phase) as (optimizer, updates):
        for group in optimizer.param_groups:
            group["lr"] = (head.suggestion or group["lr"] / first.lr_factor) * first.lr_factor
        for _ in islice(updates, NUM_STEPS + 1):  # an update is made when the next one is asked for
            pass
    with training(deep) as (optimizer, updates):
        setting = deep.optimizer.backbone_lr / deep.lr_factor
        ratios = [group["lr"] / setting if group["block"] in blocks else 0.0 for group in optimizer.param_groups]
        backbone = sweep_rates("optimizer.backbone_lr", updates, optimizer, ratios)
    owner = _owner(deep, deep.optimizer.backbone_lr, config.optimizer.backbone_lr)
    return head, replace(backbone, phase=owner)


def sweep_rates(key: str, updates: Iterator[float], optimizer: Optimizer, ratios: Sequence[float]) -> RangeTest:
    """Take steps at rates from ``LOWEST`` to ``HIGHEST`` until the loss diverges.

    Args:
        updates: the loss of one update after the other; a step is made when the next one is asked for.
        ratios: of each of the optimizer's groups to the rate that is tested.

    Raises:
        DivergedError: if the loss is not finite from the start.
    """
    rates: list[float] = []
    losses: list[float] = []
    total = weight = loss = 0.0
    for number, loss in enumerate(islice(updates, NUM_SETTLING + NUM_STEPS), -NUM_SETTLING):
        rate = LOWEST * (HIGHEST / LOWEST) ** (max(0, number) / (NUM_STEPS - 1))
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        total, weight = SMOOTHING * total + loss, SMOOTHING * weight + 1
        if not math.isfinite(loss) or (losses and total / weight > DIVERGED * min(losses)):
            break
        if number >= 0:
            rates.append(rate)
            losses.append(total / weight)
    if not rates:
        raise DivergedError(
            f"The training loss is not finite ({loss:g}) before {key} was raised above {LOWEST:g}, so there is nothing "
            "to learn from other rates. Look at the images and at the weights (model.weights)."
        )
    return RangeTest(key, tuple(rates), tuple(losses))


@contextmanager
def _training(
    config: Config,
    network: Network,
    splits: Splits,
    runtime: Runtime,
    starting_weights: Mapping[str, torch.Tensor],
    phase: Phase,
) -> Iterator[tuple[Optimizer, Iterator[float]]]:
    """A phase that is ready for its first step, with the updates to come; its rates are what the caller sets."""
    groups = open_phase(network, phase, config.train)
    optimizer = build_optimizer(phase.optimizer, groups, runtime.device)
    with InputSource(config, network, splits, runtime) as source:
        set_train_mode(network, phase)
        inputs = source.for_phase(phase)
        set_train_mode(network, phase)  # cutting the network in two left it in eval mode
        seed_phase(config.runtime.seed, 0, runtime.ranks)
        step = build_step(optimizer, inputs, inputs.forward, config.train, starting_weights)
        yield optimizer, losses_of_updates(step, inputs.train, config.train.accumulate)


def losses_of_updates(step: Step, batches: Batches, accumulate: int) -> Iterator[float]:
    """Train without end: gradients of an update, its mean loss, and the update when the next one is asked for."""
    for epoch in count(1):
        parts: list[LossSum] = []
        for number, (images, labels) in enumerate(batches.epoch(epoch)):
            completes = completes_update(number, batches.num_batches, accumulate)
            parts.append(step.backward(images, labels, batches.num_images(number), completes=completes))
            if completes:
                yield (torch.stack([part.total for part in parts]).sum() / sum(part.weight for part in parts)).item()
                step.update()
                parts.clear()


def _head_rate(config: OptimizerConfig) -> float:
    return config.block_lrs.get(HEAD, config.head_lr)


def _owner(phase: Phase, rate: float, common: float) -> str | None:
    """The phase's name where its rate does not follow from the setting that all phases have in common."""
    return None if rate == common * phase.lr_factor else phase.name
