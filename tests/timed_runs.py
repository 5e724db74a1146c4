"""Runs with a time limit, whose clock stands still or that are interrupted."""

from __future__ import annotations

from conftest import Compose
from tiny_runs import NAMES, fresh_network

from ftexp.errors import InterruptedRunError
from ftexp.finetune.phases import plan_phases
from ftexp.machine.runtime import prepare_runtime
from ftexp.training.run_time import RunTime

NO_END = ("recipe.time.end_seconds=0", "recipe.time.end_starts=0", "recipe.time.spare=0")


def timed(
    configure: Compose, *settings: str, num_images: tuple[int, int, int] = (1000, 100, 0), per_image: float = 0.01
) -> RunTime:
    """A run of a minute that has just begun."""
    config = configure("stage=staged", "train.max_minutes=1", "runtime.device=cpu", *NO_END, *settings)
    phases = plan_phases(config, NAMES, fresh_network())
    network, runtime = fresh_network(), prepare_runtime(config.runtime)
    return RunTime(config, network, runtime, phases, num_images, 0.0, 3.0, clock=lambda: 0.0, per_image=per_image)


def stop_after(count: int, update: object) -> object:
    """The same, but the run is interrupted after so many updates."""
    seen = [0]

    def stopping(step: object) -> object:
        seen[0] += 1
        if seen[0] > count:
            raise InterruptedRunError(15)
        return update(step)  # type: ignore[operator]

    return stopping
