"""The checkpoints of a run in its folder: the best weights, and all that training goes on from."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftexp.config import Config
from ftexp.errors import CheckpointError, FormatError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.machine.distributed import Ranks
from ftexp.models.blocks import Network
from ftexp.training.checkpoints.checkpoint import (
    checkpoint_content,
    load_checkpoint,
    read_last,
    restore_weights,
    write_checkpoint,
    write_last,
)
from ftexp.training.phase_state import PhaseState

log = logging.getLogger(__name__)

BEST = "best.pt"
# The best of a phase that still has to prove better than those before it.
CANDIDATE = "candidate.pt"
# The best weights as they were before they were averaged with the start's (train.wise_ft).
UNBLENDED = "unblended.pt"


@dataclass(slots=True)
class RunCheckpoints:
    """What the main process writes and reads for all ranks, which all have to call each method.

    Which file holds the best weights is decided here and nowhere else. ``best.pt`` holds those of the phases that were
    kept. The first phase writes there at once, because there is nothing that its weights could be worse than; a later
    one writes ``candidate.pt``, until ``settle`` moves that file to ``best.pt`` or removes it.

    Attributes:
        resumable: whether ``last.pt`` is written, from which the run can be resumed.
        run_id: of ``run.json``, in every checkpoint of the run.
        best: epoch of the phases that were kept so far, whose weights are in ``best.pt``; None: no phase has ended.
    """

    folder: Path
    network: Network
    config: Config
    class_to_idx: dict[str, int]
    ranks: Ranks
    resumable: bool = True
    run_id: str = ""
    best: Best | None = None
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def minutes_since(self) -> float:
        """How long ago ``last.pt`` was written, or the run begun."""
        return (time.monotonic() - self._saved_at) / 60

    def best_of_phase(self, record: EpochRecord, scores: Scores) -> Best:
        """An epoch as the best one of its phase, with the file that its weights belong into."""
        return Best(record, scores, self.folder / (BEST if self.best is None else CANDIDATE))

    def save_best(self, best: Best) -> None:
        """Write the weights that are in the network as those of a best epoch."""
        metric = self.config.train.metric
        facts = {"epoch": best.record.epoch, "metric": metric, "value": best.scores.metric(metric)}
        if self.ranks.is_main:
            write_checkpoint(best.checkpoint, self._content(**facts))

    def save_best_of(self, state: PhaseState) -> None:
        """Write the weights that a phase has now, averaged where it averages them, as those of its best epoch."""
        assert state.best is not None
        with state.ema.applied():
            self.save_best(state.best)

    def save_last(self, history: Sequence[EpochRecord], run: Mapping[str, object], state: PhaseState) -> None:
        """Write all that training goes on from, if the run is to be resumable.

        Args:
            history: the epochs of the run that have ended.
            run: what else there is to know of the run as a whole.
            state: where its phase stands.
        """
        if not self.resumable:
            return
        phase = state.state_dict()
        best = self.best.state_dict() if self.best else None
        run = {**run, "best": best, "history": json.dumps([record.as_row() for record in history])}
        if self.ranks.is_main:
            facts = {"epoch": len(history), "run": run, "phase": phase}
            write_last(self.folder, self._content(**facts))
        self._saved_at = time.monotonic()

    def read_last(self) -> dict[str, Any] | None:
        """What ``save_last`` wrote; None when the run had not got so far.

        Raises:
            CheckpointError: when another run wrote it.
        """
        if self.ranks.is_main and (self.folder / UNBLENDED).exists():
            os.replace(self.folder / UNBLENDED, self.folder / BEST)
        return self.ranks.broadcast(self._read_own_last)

    def resume(self, run: Mapping[str, Any]) -> None:
        """Take the best epoch so far from what ``save_last`` wrote of the run as a whole."""
        if run["best"] is not None:
            self.best = Best.from_state(run["best"], self.folder, self.network.num_classes)

    def settle(self, best: Best, *, kept: bool) -> None:
        """Make the best weights of a phase those of the run, or drop them; the run's best are put into the network.

        Args:
            best: epoch of the phase that has ended.
            kept: what the gate decided; the first phase is always kept.
        """
        if kept:
            if self.ranks.is_main and best.checkpoint.exists():  # else a run that was killed right here has done it
                os.replace(best.checkpoint, self.folder / BEST)
            self.best = replace(best, checkpoint=self.folder / BEST)
        elif self.ranks.is_main:
            best.checkpoint.unlink(missing_ok=True)
        weights = self.ranks.broadcast(lambda: load_checkpoint(self.folder / BEST)["model"])
        restore_weights(self.network, weights, self.folder / BEST)

    def replace_best(self, scores: Scores, alpha: float) -> None:
        """Write the network's weights, an average with the run's start, as the best; those that were stay beside them.

        Args:
            scores: of the average on validation.
            alpha: the best epoch's share in it.
        """
        assert self.best is not None
        self.best = replace(self.best, scores=scores, alpha=alpha)
        if self.ranks.is_main:
            os.replace(self.best.checkpoint, self.folder / UNBLENDED)
        self.save_best(self.best)

    def find_best_weights(self, state: PhaseState, epochs: int) -> None:
        """See to it that the weights of the phase's best epoch are in their file, wherever the run was killed.

        Args:
            epochs: that the whole run has ended.
        """
        if state.best is None:
            return
        epoch = state.best.record.epoch
        if epoch == epochs and not state.in_mid_epoch:
            self.save_best_of(state)  # killed before they were written, maybe: they are those in last.pt
        elif not self._has_weights_of(state.best):
            log.warning("resume  the weights of the best epoch, %d, are gone; the best from here on is taken.", epoch)
            state.best = None

    def _content(self, **facts: object) -> dict[str, object]:
        return checkpoint_content(self.network, self.config, self.class_to_idx, run_id=self.run_id, **facts)

    def _read_own_last(self) -> dict[str, Any] | None:
        content = read_last(self.folder)
        if content is not None and content.get("run_id", "") != self.run_id:
            raise CheckpointError(
                f"The checkpoints in {self.folder} were not written by the run of the run.json beside it, so it cannot "
                "go on from them. Put the files of one run back together, or start a new run."
            )
        return content

    def _has_weights_of(self, best: Best) -> bool:
        return self.ranks.broadcast(
            lambda: any(self._is_of(path, best) for path in (best.checkpoint, self.folder / BEST))
        )

    def _is_of(self, path: Path, best: Best) -> bool:
        try:
            content = load_checkpoint(path)
            return (content.get("epoch"), content.get("run_id", "")) == (best.record.epoch, self.run_id)
        except FormatError:
            raise
        except (FileNotFoundError, CheckpointError):
            return False
