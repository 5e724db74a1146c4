"""Restores an interrupted run from ``last.pt``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ftexp.evaluation.history import EpochRecord
from ftexp.files.file_format import reading
from ftexp.preprocessing import Preprocessing
from ftexp.training.checkpoints.checkpoint import LAST, restore_weights
from ftexp.training.checkpoints.learned_weights import whole_weights
from ftexp.training.phase_loop import PhaseLoop

log = logging.getLogger(__name__)


def restore(loop: PhaseLoop, num_phases: int) -> tuple[int, Mapping[str, Any] | None]:
    """Restore the network, the history and the best epoch of an interrupted run.

    Args:
        loop: the loop of the run that is resumed, before its first phase.
        num_phases: number of planned phases.

    Returns:
        The number of the phase to resume, and its saved state; 0 and None if training had not begun.

    Raises:
        CheckpointError: if the checkpoint cannot be read, or does not fit the run.
    """
    content = loop.checkpoints.read_last()
    if content is None:
        return 0, None
    file = loop.checkpoints.folder / LAST
    with reading(file):
        run, phase = content["run"], content["phase"]
        # The transforms are those that the run began with, even if another version of a library describes the weights
        # differently.
        loop.network.preprocessing = Preprocessing.from_dict(content["preprocessing"])
        restore_weights(loop.network, whole_weights(content, loop.network, file), file)
        loop.history.extend(EpochRecord.from_row(record) for record in json.loads(run["history"]))
        loop.checkpoints.resume(run)
        loop.report.resume(json.loads(run["report"]), loop.history)
        if loop.run_time is not None:
            loop.run_time.resume(json.loads(run["time"]))
        number = int(run["phase_number"])
        if not 0 <= number < num_phases:
            raise ValueError(f"there is no phase {number}")
    loop.report.send_missing()
    log.info("resume  %s is resumed after epoch %d", loop.report.folder, len(loop.history))
    return number, phase
