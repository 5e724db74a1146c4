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
from ftexp.models.blocks import Network
from ftexp.ranks import Ranks
from ftexp.training.checkpoint import (
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
    """What the main process writes and reads for all ranks; each method but ``path`` is for all of them to call.

    Attributes:
        resumable: False in a sweep, which begins a trial that was stopped anew: nothing is kept to go on from.
        run_id: of ``run.json``, in every checkpoint of the run.
    """

    folder: Path
    network: Network
    config: Config
    class_to_idx: dict[str, int]
    ranks: Ranks
    resumable: bool = True
    run_id: str = ""
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def minutes_since(self) -> float:
        """How long ago ``last.pt`` was written, or the run begun."""
        return (time.monotonic() - self._saved_at) / 60

    def path(self, *, proven: bool) -> Path:
        """Where the best weights of a phase go: at once to their place, or to wait until they have proved better."""
        return self.folder / (BEST if proven else CANDIDATE)

    def save_best(self, best: Best) -> None:
        """Write the weights that are in the network as those of a phase's best epoch."""
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
        """Write all that training goes on from.

        Args:
            run: where it stands as a whole.
            state: where its phase stands.
        """
        if not self.resumable:
            return
        phase = state.state_dict()
        run = {**run, "history": json.dumps([record.as_row() for record in history])}
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
        return self.ranks.share(self._read_own_last)

    def restore_best(self) -> None:
        """Put the run's best weights back into the network."""
        weights = self.ranks.share(lambda: load_checkpoint(self.folder / BEST)["model"])
        restore_weights(self.network, weights, self.folder / BEST)

    def keep(self, best: Best) -> Best:
        """Make the best weights of a phase those of the run."""
        if self.ranks.is_main and best.checkpoint.exists():  # else a run that was killed right here has done it already
            os.replace(best.checkpoint, self.folder / BEST)
        return replace(best, checkpoint=self.folder / BEST)

    def drop(self, best: Best) -> None:
        """Forget the best weights of a phase."""
        if self.ranks.is_main:
            best.checkpoint.unlink(missing_ok=True)

    def replace_best(self, best: Best) -> None:
        """Write the network's weights as the run's best; those that were stay beside them."""
        if self.ranks.is_main:
            os.replace(best.checkpoint, self.folder / UNBLENDED)
        self.save_best(best)

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
        return self.ranks.share(lambda: any(self._is_of(path, best) for path in (best.checkpoint, self.folder / BEST)))

    def _is_of(self, path: Path, best: Best) -> bool:
        try:
            content = load_checkpoint(path)
            return (content.get("epoch"), content.get("run_id", "")) == (best.record.epoch, self.run_id)
        except FormatError:
            raise
        except (FileNotFoundError, CheckpointError):
            return False
