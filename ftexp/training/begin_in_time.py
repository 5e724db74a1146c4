"""Whether ``train.max_minutes`` leaves time to begin a phase, to solve its head, and to cache activations."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ftexp.config import Config
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.training.run_time import PASS_SHARE, RunTime

log = logging.getLogger(__name__)


def begin_in_time(
    run_time: RunTime, number: int, saved: Mapping[str, Any] | None = None, *, knows_features: bool = False
) -> tuple[Phase, Config] | None:
    """What a phase is trained as, or None if there is too little time to begin it.

    The first phase is always begun. So is the one in which a run is resumed: the network has the weights of its last
    update, and only the end of the phase puts the best ones back.

    Args:
        run_time: the time of the run.
        number: number of the phase, from 0.
        saved: the saved state of the phase, if the run is resumed in it; None: it begins now.
        knows_features: whether what enters the last layer is known, so that solving the head needs no pass.

    Returns:
        The phase, whose head is not solved if the pass over all images would take too long; and the configuration,
        in which nothing is cached if filling the cache would.
    """
    phase, config = run_time.phases[number], run_time.config
    room, least, a_pass = run_time.runtime.ranks.broadcast(lambda: run_time.estimates(number))
    if number > 0 and saved is None and not phase.solved and room < least:
        run_time.unbegun = list(run_time.phases[number:])
        text = "time    %s is not begun: it would take at least %.1f s, and only %.1f s are left (train.max_minutes)"
        log.info(text, phase.name, least, room)
        return None
    if number == 0 and not room:
        text = "time    train.max_minutes=%g is too short: %.0f s are used, and the end takes about %.0f s."
        log.warning(text, config.train.max_minutes, run_time.used(), run_time.reserve)
    has_time = a_pass <= PASS_SHARE * room
    may_solve = has_time or knows_features or (number == 0 and run_time.left_out_images)
    if phase.solved and saved is not None:
        phase = phase if saved["plan"] is None else _by_steps(run_time, number)  # as it was begun
    elif phase.solved and not may_solve:
        text = "time    %s is trained by steps: to solve it would take about %.0f of %.0f s (train.max_minutes)"
        log.info(text, phase.name, a_pass, room)
        phase = _by_steps(run_time, number)
    if not phase.solved and run_time.has_frozen_blocks(phase) and not has_time:
        text = "time    %s caches no activations: they would take about %.0f of %.0f s (train.max_minutes)"
        log.info(text, phase.name, a_pass, room)
        config = replace(config, runtime=replace(config.runtime, cache="off"))
    return phase, config


def _by_steps(run_time: RunTime, number: int) -> Phase:
    """A phase that was to be solved, with the epochs of its stage; the time is shared out by them."""
    planned = plan_phases(run_time.config, run_time.network.names, run_time.network)
    phase = replace(run_time.phases[number], solved=False, epochs=planned[number].epochs)
    run_time.phases = [*run_time.phases[:number], phase, *run_time.phases[number + 1 :]]
    return phase
