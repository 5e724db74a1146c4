"""``train.max_minutes``: shares the time of a run out among its phases, and says what was cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.finetune.epochs import epoch_of
from ftexp.finetune.phases import Phase
from ftexp.machine.accelerator import wait_for
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import HEAD, Network
from ftexp.training.image_seconds import measured_samples, seconds_per_image
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.inputs.prefix_key import ONNXRUNTIME
from ftexp.training.phase_state import PhaseState
from ftexp.training.time_plan import PhasePlan

# A pass over all images, to solve a head or to cache activations, may take this share of the phase's time: one epoch
# without cached activations takes as long.
PASS_SHARE = 0.7
# Averages are scored (train.wise_ft), and labels are judged, if that takes no more than this share of the time.
SMALL_SHARE = 0.1
# The time of a training step, relative to scoring its images: of all blocks, and of the last on cached activations.
STEP, CACHED_STEP = 3.0, 0.3
# ONNX Runtime's time for an image, relative to torch's, decoding included, and that of exporting the frozen blocks,
# relative to the start of the command: 0.46 and 0.62, and 0.4 (EfficientNet-Lite0 at 224 px, two cores, 2026-11-27).
ONNX_TIME, EXPORT_STARTS = 0.65, 0.5


@dataclass(slots=True)
class RunTime:
    """The time of a run with a limit.

    Attributes:
        config: the configuration of the run.
        network: the network.
        runtime: the device and the ranks.
        phases: the planned phases.
        num_images: images of train, val and, if it will be scored, test.
        began: when the command began, by ``clock``.
        start_seconds: seconds from there to the beginning of the run, most of which are imports.
        clock: function that returns seconds.
        per_image: seconds to score an image that is not cached; measured before the first phase.
        left_out_images: whether training images were left out, so that there is time for a pass over all others.
        plans: the phases that were begun, by name.
        unbegun: the phases for which no time was left.
        earlier: the entries of the plan from before the run was resumed.
    """

    config: Config
    network: Network
    runtime: Runtime
    phases: Sequence[Phase]
    num_images: tuple[int, int, int]
    began: float
    start_seconds: float
    clock: Callable[[], float] = time.monotonic
    per_image: float = 0.0
    left_out_images: bool = False
    plans: dict[str, PhasePlan] = field(default_factory=dict)
    unbegun: list[Phase] = field(default_factory=list)
    earlier: list[dict[str, Any]] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """The limit in seconds."""
        assert self.config.train.max_minutes is not None
        return 60 * self.config.train.max_minutes

    def used(self) -> float:
        """Seconds that the run has used, those before it was resumed included."""
        return self.clock() - self.began

    def state(self) -> dict[str, Any]:
        """What has to be kept for a run that is resumed: the seconds that it has used, and its plan."""
        return {"seconds": self.used(), "plan": self.entries()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Count what the run had used when ``state`` was called, and keep its plan of earlier phases."""
        self.began -= state["seconds"]
        self.earlier = list(state["plan"])

    def settle(self, config: Config, network: Network, phases: Sequence[Phase]) -> None:
        """Plan for what the run came to after the first measurement."""
        self.config, self.network, self.phases = config, network, phases

    def measure(self, source: InputSource, samples: Sequence[Sample]) -> None:
        """Measure the seconds for an image that is not cached, by a few batches of these samples."""
        few = measured_samples(samples, self.config.train.images_per_step, self.runtime.device)
        with source:
            measured = seconds_per_image(self.network.module, source.for_scoring(few), self.runtime, self.clock)
        self.per_image = self.runtime.ranks.broadcast(lambda: measured)  # all ranks decide alike

    @property
    def allows_averages(self) -> bool:
        """Whether scoring the averages of ``train.wise_ft`` takes a small part of the time."""
        return self.per_image * self.num_images[1] * len(self.config.train.wise_ft) <= SMALL_SHARE * self.limit

    @property
    def allows_labels(self) -> bool:
        """Whether the pass over all images that judges the labels takes a small part of the time."""
        return self.runtime.ranks.broadcast(lambda: self._a_pass <= SMALL_SHARE * self.limit)

    @property
    def allows_pass(self) -> bool:
        """Whether there is time for a pass over all images that solves the head before the first phase."""
        return self.left_out_images or self.runtime.ranks.broadcast(lambda: self._a_pass <= PASS_SHARE * self.left)

    @property
    def images_of_a_pass(self) -> int:
        """How many images a pass before the first phase may have, so that it leaves time to train on its features."""
        before, per_image = self._cost_of_a_pass
        return max(0, int((PASS_SHARE * self.left - before) / max(per_image, 1e-9)))

    @property
    def _a_pass(self) -> float:
        """Seconds of a pass over train and val."""
        before, per_image = self._cost_of_a_pass
        return before + per_image * sum(self.num_images[:2])

    @property
    def _cost_of_a_pass(self) -> tuple[float, float]:
        """Seconds before the first image of a pass, and for each image."""
        if self.config.runtime.frozen_engine == ONNXRUNTIME:
            return EXPORT_STARTS * self.start_seconds, ONNX_TIME * self.per_image
        return 0.0, self.per_image

    @property
    def reserve(self) -> float:
        """Seconds that are kept for what follows the training: averages, the test split, plots, the page, the end."""
        settings, (_, val, test) = self.config.recipe.time, self.num_images
        end = settings.end_seconds + settings.end_starts * self.start_seconds
        scored = test + (val * len(self.config.train.wise_ft) if self.allows_averages else 0)
        return end + self.per_image * scored + settings.spare * self.limit

    @property
    def left(self) -> float:
        """Seconds that are left for training."""
        return max(0.0, self.limit - self.reserve - self.used())

    def share(self, number: int) -> float:
        """Seconds for a phase: the time that is left is shared out among it and the later phases by their costs.

        Every phase needs the time of ``recipe.time.min_updates`` at least. If the last phase would get less, it gets
        nothing, and the others share its part.
        """
        phases, left = list(self.phases[number:]), self.left
        costs = [self.cost(phase) for phase in phases]
        while len(costs) > 1 and left * costs[-1] / sum(costs) < self._least(phases[len(costs) - 1]):
            costs.pop()
        return min(left, max(left * costs[0] / sum(costs), self._least(phases[0])))

    def plan(self, number: int, phase: Phase, state: PhaseState) -> PhasePlan:
        """The plan of a phase before its first step: all of its epochs.

        Args:
            number: number of the phase, from 0.
            phase: the phase.
            state: the state of the phase; its schedule follows the plan.
        """
        ranks, (train, val, _) = self.runtime.ranks, self.num_images
        per_epoch = epoch_of(phase, self.network, self.config.train, train, ranks.size).num_updates
        most = phase.epochs * per_epoch
        plan = PhasePlan(
            used=self.used,
            wait=lambda: wait_for(self.runtime.device),
            ends_at=self.used() + self.share(number),
            per_epoch=per_epoch,
            most=most,
            validation=self.per_image * val,
            changed=state.schedule.fit_to,
            agree=lambda updates: ranks.broadcast(lambda: updates),
            planned=most,
        )
        self.plans[phase.name] = plan
        return plan

    def entries(self) -> list[dict[str, Any]]:
        """The plan so far as plain data: an entry for each phase that was begun."""
        return [entry for entry in self.earlier if entry["phase"] not in self.plans] + [
            {
                "phase": name,
                "updates": plan.planned,
                "updates_of_all_epochs": plan.most,
                "updates_per_epoch": plan.per_epoch,
                "seconds_per_update": plan.seconds_per_update,
                "ends_at_second": plan.ends_at,
            }
            for name, plan in self.plans.items()
        ]

    def estimates(self, number: int) -> tuple[float, float, float]:
        """Seconds that there are for a phase, its least seconds, and those of a pass over all images."""
        phase = self.phases[number]
        return self.left if phase.solved else self.share(number), self._least(phase), self._a_pass

    def _least(self, phase: Phase) -> float:
        """Seconds of ``recipe.time.min_updates`` and a validation, by the seconds for scoring an image."""
        train, val, _ = self.num_images
        batch = self.config.train.images_per_step * self.config.train.accumulate
        images = min(batch * self.config.recipe.time.min_updates, phase.epochs * train)
        if self.has_frozen_blocks(phase):
            return self.per_image * (train + val + CACHED_STEP * images)
        return self.per_image * (val + STEP * images)

    def has_frozen_blocks(self, phase: Phase) -> bool:
        """Whether the activations of blocks that a phase does not train can be cached."""
        return phase.learning[0] != self.network.names[0]

    def cost(self, phase: Phase) -> float:
        """The cost of a phase relative to the others, before its times are known."""
        settings, blocks = self.config.recipe.time, set(phase.learning)
        whole = blocks == set(self.network.names) and phase.part is None
        cost = settings.head_cost if blocks == {HEAD} else settings.all_cost if whole else settings.part_cost
        return cost * phase.epochs
