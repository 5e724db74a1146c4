"""When a phase ends: after its epochs, when its time is over, or when it has stopped improving (``train.patience``).

A long phase says beforehand how long it takes.
"""

from __future__ import annotations

import logging

from ftexp.config import Config
from ftexp.finetune.phases import Phase
from ftexp.training.phase_state import PhaseState

log = logging.getLogger(__name__)

# A phase that goes on for longer says so.
LONG_SECONDS = 120.0


def has_another_epoch(config: Config, phase: Phase, state: PhaseState, epochs_of_run: int) -> bool:
    """Whether a phase trains another epoch; arguments as ``ran_out_of_patience``."""
    return state.epochs_done < state.epochs_of(phase) and not ran_out_of_patience(config, phase, state, epochs_of_run)


def log_time_ahead(config: Config, phase: Phase, state: PhaseState, seconds: float) -> None:
    """Say after the second epoch how long a phase goes on, if that is long and nothing limits it.

    The first epoch says little: files are decoded in it, and kernels are loaded.

    Args:
        config: the configuration of the run.
        phase: the phase.
        state: its state.
        seconds: duration of the epoch.
    """
    left = state.epochs_of(phase) - state.epochs_done
    if state.epochs_done == 2 and config.train.max_minutes is None and left * seconds >= LONG_SECONDS:
        epochs = "1 more epoch takes" if left == 1 else f"{left} more epochs take"
        minutes = left * seconds / 60
        log.info("time    %s: %s about %.0f minutes; train.max_minutes sets a limit", phase.name, epochs, minutes)


def ran_out_of_patience(config: Config, phase: Phase, state: PhaseState, epochs_of_run: int) -> bool:
    """Whether a phase has waited too long for a better epoch; a log line says so.

    Args:
        config: the configuration of the run.
        phase: the phase.
        state: its state.
        epochs_of_run: completed epochs of the whole run.
    """
    if phase.patience is None or state.best is None:
        return False
    waited = epochs_of_run - state.best.record.epoch
    if waited < phase.patience:
        return False
    log.info(
        "early   %s stops after %d of %d epochs: no better %s in the last %d (patience)",
        phase.name,
        state.epochs_done,
        phase.epochs,
        config.train.metric,
        waited,
    )
    return True
