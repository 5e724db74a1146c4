"""The learning-rate range test: training at rates that grow from step to step, while the loss is recorded."""

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
from ftexp.finetune.recipe import foreseen
from ftexp.machine.runtime import Runtime, seed_phase
from ftexp.models.blocks import HEAD, Network
from ftexp.models.eval_caches import load_weights
from ftexp.training.frozen_head import FrozenHead
from ftexp.training.inputs.batches import Batches
from ftexp.training.inputs.features import KnownFeatures
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.loop import completes_update
from ftexp.training.losses import LossSum
from ftexp.training.phase_state import build_step, open_phase
from ftexp.training.starting_weights import backbone_state
from ftexp.training.step import Step

LOWEST, HIGHEST = 1e-6, 10.0
NUM_STEPS = 120
# Steps at the lowest rate before the test, until the running mean no longer depends on single batches.
NUM_SETTLING = 20
# A relative change of the loss below this is noise.
NOISE = 0.05
# Weight of the previous value in the running mean of the loss.
SMOOTHING = 0.9
# The test ends when the mean loss is this many times its lowest value so far.
DIVERGED = 4.0


@dataclass(frozen=True, slots=True)
class RangeTest:
    """The result of one range test.

    Attributes:
        key: the tested setting, such as ``optimizer.head_lr``.
        rates: the tested rates; each is the one before, times a constant factor.
        losses: running means of the training loss, one per rate, all finite.
        phase: name of the phase in ``stage.phases`` that sets this rate itself; None: the setting of all phases.
    """

    key: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    phase: str | None = None

    @property
    def suggestion(self) -> float | None:
        """The suggested rate: the one at which the loss has fallen half of the way to its lowest value.

        If the loss does not fall, it is a tenth of the rate at which it rises; None if it neither falls nor rises.
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
    config: Config,
    network: Network,
    splits: Splits,
    phases: Sequence[Phase],
    runtime: Runtime,
    features: KnownFeatures | None = None,
) -> tuple[RangeTest, ...]:
    """Test the head's rate; then train the head at the suggested rate, and test the backbone's. Changes the weights.

    Where the run solves the head first (its first phase does, or ``head.init=solved``), both tests start from the
    solved head, and the head is not trained first.

    The head's rate is tested in the first phase that trains by steps, and the backbone's in the phase with the most
    trainable blocks. What is tested is the setting, which a phase multiplies by its ``lr_factor``. The backbone's
    blocks keep the ratios of their rates. The head, and blocks with a rate in ``block_lrs``, do not learn during the
    backbone's test.

    Args:
        config: the configuration.
        network: the network on its device.
        splits: the samples; only the training split is used.
        phases: the planned phases; one of them at least trains by steps.
        runtime: the device and the ranks.
        features: what enters the last layer of the pretrained network, if it is known.

    Returns:
        The test of the head, and that of the backbone if a phase trains it.

    Source: Smith, 2017, "Cyclical learning rates for training neural networks".
    """
    config = foreseen(config, network)  # which is what the phases were planned with
    frozen, first = FrozenHead(network, config, runtime, splits, features), phases[0]
    solved = frozen.solve_pretrained(first) if first.solved else frozen.solve_start(first)
    by_steps = [phase for phase in phases if not phase.solved]
    weights = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    starting_weights = backbone_state(network) if config.train.needs_starting_weights else {}
    training = partial(_training, config, network, splits, runtime, starting_weights)
    first, deep = by_steps[0], deepest(by_steps)
    head_phase = replace(first, learning=(HEAD,), change=None)
    head_key = f"optimizer.block_lrs.{HEAD}" if HEAD in first.optimizer.block_lrs else "optimizer.head_lr"
    with training(head_phase) as (optimizer, updates):
        head = sweep_rates(head_key, updates, optimizer, [first.lr_factor] * len(optimizer.param_groups))
    head = replace(head, phase=_owner(first, _head_rate(first.optimizer), _head_rate(config.optimizer)))
    blocks = [block for block in deep.learning if block != HEAD and block not in deep.optimizer.block_lrs]
    if not blocks:
        return (head,)
    load_weights(network.module, weights)
    if solved is None:
        with training(head_phase) as (optimizer, updates):
            for group in optimizer.param_groups:
                group["lr"] = (head.suggestion or group["lr"] / first.lr_factor) * first.lr_factor
            for _ in islice(updates, NUM_STEPS + 1):  # each update is made when the next loss is requested
                pass
    with training(deep) as (optimizer, updates):
        setting = deep.optimizer.number("backbone_lr") / deep.lr_factor
        ratios = [group["lr"] / setting if group["block"] in blocks else 0.0 for group in optimizer.param_groups]
        backbone = sweep_rates("optimizer.backbone_lr", updates, optimizer, ratios)
    own, common = (optimizer.number("backbone_lr") for optimizer in (deep.optimizer, config.optimizer))
    owner = _owner(deep, own, common)
    return head, replace(backbone, phase=owner)


def sweep_rates(key: str, updates: Iterator[float], optimizer: Optimizer, ratios: Sequence[float]) -> RangeTest:
    """Train at rates from ``LOWEST`` to ``HIGHEST`` until the loss diverges.

    Args:
        key: the tested setting.
        updates: yields the loss of each update, which is made when the next loss is requested.
        optimizer: the optimizer whose rates are set.
        ratios: ratio of each parameter group's rate to the tested rate.

    Raises:
        DivergedError: if the loss is not finite at the lowest rate.
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
            f"The training loss is not finite ({loss:g}) although {key} is still {LOWEST:g}, so no higher rate can be "
            "tested. Look at the images and at the weights (model.weights)."
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
    """A phase before its first step: its optimizer, whose rates the caller sets, and the losses of its updates."""
    with (
        open_phase(network, phase, config.train) as groups,
        InputSource(config, network, splits, runtime) as source,
    ):
        optimizer = build_optimizer(phase.optimizer, groups, runtime.device)
        set_train_mode(network, phase)
        inputs = source.for_phase(phase)
        set_train_mode(network, phase)  # splitting the network left it in eval mode
        seed_phase(config.runtime.seed, 0, runtime.ranks)
        step = build_step(optimizer, inputs, inputs.forward, config.train, starting_weights)
        yield optimizer, losses_of_updates(step, inputs.train, config.train.accumulate)


def losses_of_updates(step: Step, batches: Batches, accumulate: int) -> Iterator[float]:
    """Train without end: yield the mean loss of each update, which is made when the next loss is requested.

    Args:
        step: the training step.
        batches: the training batches, epoch after epoch.
        accumulate: batches per update.
    """
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
    return config.block_lrs[HEAD] if HEAD in config.block_lrs else config.number("head_lr")


def _owner(phase: Phase, rate: float, common: float) -> str | None:
    """The phase's name if it sets this rate itself; None if the rate comes from the setting of all phases."""
    return None if rate == common * phase.lr_factor else phase.name
