"""The state of a phase during training apart from the network's tensors, which is saved and restored as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ftexp.config import SchedulerConfig, TrainConfig
from ftexp.errors import CheckpointError
from ftexp.evaluation.best import Best
from ftexp.finetune.adapters import prepared
from ftexp.finetune.epochs import span_of
from ftexp.finetune.freezing import open_blocks
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.param_groups import ParamGroup, build_param_groups
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Schedule
from ftexp.models.blocks import HEAD, Network
from ftexp.models.parametrized import adapters_state
from ftexp.training.ema import Ema, build_ema
from ftexp.training.epoch_sums import EpochSums
from ftexp.training.inputs.batches import Forward, Inputs
from ftexp.training.random_state import random_state, set_random_state
from ftexp.training.recovery import Recovery
from ftexp.training.starting_weights import L2SPPenalty
from ftexp.training.step import Step
from ftexp.training.time_plan import PhasePlan


@dataclass(slots=True)
class PhaseState:
    """The state of a phase.

    Attributes:
        number: number of the phase, from 0.
        network: the network.
        optimizer: the optimizer of the phase.
        schedule: the learning-rate schedule of the phase.
        step: the training step.
        ema: the moving average of the weights.
        recovery: restores the beginning of the epoch after a loss that is not finite.
        head: copies of the head's parameters at the beginning of the phase.
        learning: the blocks of which something learns.
        epochs_done: completed epochs of this phase.
        rates: learning rate of each block at the beginning of the epoch.
        sums: the sums of the present epoch.
        best: the best epoch of this phase so far.
        plan: the updates that fit into the time limit of the run; None: there is none.
    """

    number: int
    network: Network
    optimizer: Optimizer
    schedule: Schedule
    step: Step
    ema: Ema
    recovery: Recovery
    head: list[torch.Tensor]
    learning: tuple[str, ...]
    epochs_done: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    sums: EpochSums = field(default_factory=EpochSums)
    best: Best | None = None
    plan: PhasePlan | None = None

    @property
    def updates_done(self) -> int:
        """Updates of the phase so far, by its plan."""
        assert self.plan is not None
        return self.epochs_done * self.plan.per_epoch + len(self.sums.norms)

    def epochs_of(self, phase: Phase) -> int:
        """Epochs that the phase trains: all of them, or as many as its time allows."""
        return phase.epochs if self.plan is None else self.plan.epochs

    @property
    def in_mid_epoch(self) -> bool:
        """Whether an epoch is partly done."""
        return bool(self.sums.sizes)

    @property
    def head_change(self) -> float:
        """Distance of the head from its parameters at the beginning of the phase, relative to their norm."""
        moved = get_total_norm([a - b for a, b in zip(head_parameters(self.network), self.head, strict=True)])
        return (moved / get_total_norm(self.head)).item()

    def begin_epoch(self) -> None:
        """Remember the state at the beginning of an epoch; a resumed epoch already has it."""
        if not self.in_mid_epoch:
            self.rates = {str(group["block"]): float(group["lr"]) for group in self.optimizer.param_groups}
            self.recovery.remember()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors, with the random state of every rank; a collective."""
        return {
            "groups": self._layout(),
            "adapters": adapters_state(self.network.module),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.step.scaler.state_dict(),
            "ema": self.ema.state_dict(),
            "recovery": self.recovery.state_dict() if self.in_mid_epoch else {"left": self.recovery.left},
            "head": self.head,
            "epochs_done": self.epochs_done,
            "rates": self.rates,
            "sums": self.sums.state_dict(self.step.runtime.ranks),
            "best": self.best.state_dict() if self.best else None,
            "plan": self.plan.state_dict() if self.plan else None,
            "random": self.step.runtime.ranks.all_gather(random_state(self.step.runtime.device)),
        }

    def load_state_dict(self, state: dict[str, Any], checkpoints: Path) -> None:
        """Restore what ``state_dict`` returned; the network already has the saved weights, adapters aside.

        Args:
            state: the saved state.
            checkpoints: the folder of the best weights.

        Raises:
            CheckpointError: if the parameter groups differ, because another version of a package made them.
        """
        if state["groups"] != self._layout():
            raise CheckpointError(
                "The saved optimizer has other parameter groups than this version makes of the same settings. Resume "
                "with the versions in the run's run.json, or start a new run."
            )
        self.network.module.load_state_dict(state["adapters"], strict=False)  # before the recovery copies them
        device, ranks = self.step.runtime.device, self.step.runtime.ranks
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step.scaler.load_state_dict(state["scaler"])
        self.ema.load_state_dict(state["ema"])
        self.head = [tensor.to(device) for tensor in state["head"]]
        self.epochs_done = int(state["epochs_done"])
        self.rates = state["rates"]
        self.sums = EpochSums.from_state(state["sums"], ranks)
        self.recovery.load_state_dict(state["recovery"])
        if state["best"] is not None:
            self.best = Best.from_state(state["best"], checkpoints, self.network.num_classes)
        if self.plan is not None and state["plan"] is not None:
            self.plan.load_state_dict(state["plan"])
        if ranks.rank < len(state["random"]):  # a rank that is new keeps its seed
            set_random_state(state["random"][ranks.rank], device)

    def _layout(self) -> list[list[Any]]:
        names = {parameter: name for name, parameter in self.network.module.named_parameters()}
        return [[group["block"], [names[p] for p in group["params"]]] for group in self.optimizer.param_groups]


@contextmanager
def open_phase(network: Network, phase: Phase, settings: TrainConfig) -> Iterator[list[ParamGroup]]:
    """Make the phase's change of the network, unfreeze exactly what the phase trains, and group its parameters.

    Afterwards the change is undone: the checkpoints hold what was trained.

    Args:
        network: the network.
        phase: the phase.
        settings: L2-SP in these settings replaces weight decay in the backbone.
    """
    with prepared(network, phase.change):
        open_blocks(network, phase)
        yield build_param_groups(network, phase, decay_backbone=settings.l2_sp is None)


def build_step(
    optimizer: Optimizer,
    inputs: Inputs,
    forward: Forward,
    settings: TrainConfig,
    starting_weights: Mapping[str, torch.Tensor],
    after_update: Sequence[Callable[[], object]] = (),
) -> Step:
    """Build a training step with the loss, clipping and L2-SP of the settings.

    Args:
        optimizer: the optimizer.
        inputs: the network, the batches and the loss.
        forward: function from the batches of ``inputs`` to logits [B, C], perhaps compiled.
        settings: the settings of training.
        starting_weights: the starting weights of the backbone by name; only ``settings.l2_sp`` needs them.
        after_update: are called after every update, in this order.
    """
    network, runtime = inputs.network, inputs.runtime
    return Step(
        runtime.ranks.replicate(forward, network.module),
        optimizer,
        inputs.loss.to(runtime.device),
        runtime,
        clip_norm=settings.clip_norm,
        before_update=[L2SPPenalty(network, starting_weights, settings.l2_sp).add_gradients],
        after_update=after_update,
    )


def begin_phase(
    number: int,
    phase: Phase,
    groups: Sequence[ParamGroup],
    inputs: Inputs,
    forward: Forward,
    settings: TrainConfig,
    starting_weights: Mapping[str, torch.Tensor],
) -> PhaseState:
    """The state of a phase before its first step.

    Args:
        number: number of the phase, from 0.
        phase: the phase.
        groups: the parameter groups from ``open_phase``.
        inputs: the network, the batches and the loss.
        forward: function from the batches of ``inputs`` to logits [B, C], perhaps compiled.
        settings: the settings of training.
        starting_weights: the starting weights of the backbone by name; only ``settings.l2_sp`` needs them.
    """
    network, runtime = inputs.network, inputs.runtime
    optimizer = build_optimizer(phase.optimizer, groups, runtime.device)
    span = span_of(phase, network, settings, inputs.train.num_samples, runtime.ranks.size)
    constant = SchedulerConfig(name="constant", floor=1.0)  # a solved head has no steps to schedule
    schedule = Schedule(constant if phase.solved else phase.scheduler, optimizer, span)
    ema = build_ema(network, phase, None if phase.solved else settings.ema)
    step = build_step(optimizer, inputs, forward, settings, starting_weights, (schedule.after_step, ema.update))
    recovery = Recovery(network, optimizer, schedule, ema, 0 if phase.solved else settings.nan_retries)
    head = head_parameters(network)
    return PhaseState(number, network, optimizer, schedule, step, ema, recovery, head, phase.learning)


def head_parameters(network: Network) -> list[torch.Tensor]:
    """Copies of the head's present parameters."""
    return [parameter.detach().clone() for parameter in network.parameters(HEAD).values()]
