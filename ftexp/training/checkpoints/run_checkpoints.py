"""The checkpoints in the folder of a run: the best weights, and all that is needed to resume training."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from ftexp.config import Config
from ftexp.errors import CheckpointError, FormatError, InterruptedRunError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.scores import Scores
from ftexp.machine.distributed import Ranks
from ftexp.models.blocks import Network
from ftexp.training.checkpoints.checkpoint import (
    LAST,
    PREVIOUS,
    checkpoint_content,
    load_checkpoint,
    read_last,
    restore_weights,
    write_checkpoint,
    write_last,
)
from ftexp.training.checkpoints.learned_weights import digest_of, split_weights
from ftexp.training.checkpoints.ordered_writer import OrderedWriter
from ftexp.training.phase_state import PhaseState

log = logging.getLogger(__name__)

BEST = "best.pt"
# The best weights of a later phase, before the gate has compared them with those of the phases before it.
CANDIDATE = "candidate.pt"
# The best weights before they were averaged with the starting weights (train.wise_ft).
UNBLENDED = "unblended.pt"


@dataclass(slots=True)
class RunCheckpoints:
    """Writes and reads the checkpoints of a run in the main process. All ranks have to call each method.

    A thread writes copies of the state, in the order in which they are saved, so that ``best.pt`` is never of an epoch
    that ``last.pt`` does not have. A save waits until the files of the save before it are written, and raises what has
    kept them from being written. At the end of a ``with``, all files are written.

    This class alone decides which file holds the best weights. ``best.pt`` holds those of the kept phases. The first
    phase writes to it directly, because there are no earlier weights to compare with. A later phase writes to
    ``candidate.pt``, which ``settle`` moves to ``best.pt`` or leaves to be overwritten: until the next ``last.pt``, a
    resumed run ends the phase again, and needs it.

    Attributes:
        folder: the folder of the checkpoints.
        network: the network whose weights are saved.
        config: the configuration of the run.
        class_to_idx: the index of each class.
        ranks: the processes of the run.
        resumable: whether ``last.pt`` is written, from which the run can be resumed.
        run_id: the id in ``run.json``, which is saved in every checkpoint.
        best: the best epoch of the kept phases, whose weights are in ``best.pt``; None before a phase has ended.
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
    _writer: OrderedWriter = field(default_factory=OrderedWriter)
    _frozen: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._writer.close()
        except InterruptedRunError as second:
            raise InterruptedRunError(second.signal, saved=False) from error

    @property
    def minutes_since(self) -> float:
        """Minutes since ``last.pt`` was written, or since the run began."""
        return (time.monotonic() - self._saved_at) / 60

    def best_of_phase(self, record: EpochRecord, scores: Scores) -> Best:
        """An epoch as the best one of its phase, with the file for its weights."""
        return Best(record, scores, self.folder / (BEST if self.best is None else CANDIDATE))

    def save_best(self, best: Best) -> None:
        """Write the present weights of the network as those of a best epoch."""
        metric = self.config.train.metric
        facts = {"epoch": best.record.epoch, "metric": metric, "value": best.scores.metric(metric)}
        if self.ranks.is_main:
            self._write(write_checkpoint, best.checkpoint, self._content(**facts))

    def save_best_of(self, state: PhaseState) -> None:
        """Write the present weights of a phase (their EMA, if there is one) as those of its best epoch."""
        assert state.best is not None
        with state.ema.applied():
            self.save_best(state.best)

    def save_last(self, history: Sequence[EpochRecord], run: Mapping[str, object], state: PhaseState) -> None:
        """Write all that is needed to resume training, if the run is resumable.

        Args:
            history: the completed epochs of the run.
            run: further entries about the run as a whole.
            state: the state of the phase.
        """
        if not self.resumable:
            return
        self._writer.wait()
        phase = state.state_dict()
        best = self.best.state_dict() if self.best else None
        run = {**run, "best": best, "history": json.dumps([record.as_row() for record in history])}
        if self.ranks.is_main:
            facts = {"epoch": len(history), "run": run, "phase": phase}
            self._write(write_last, self.folder, self._content(**self._weights(state), **facts))
        self._saved_at = time.monotonic()

    def read_last(self) -> dict[str, Any] | None:
        """Read what ``save_last`` wrote; None if the run was stopped before its first save.

        Raises:
            CheckpointError: if another run wrote it, or it is damaged.
        """
        if self.ranks.is_main and (self.folder / UNBLENDED).exists():
            os.replace(self.folder / UNBLENDED, self.folder / BEST)
        return self.ranks.broadcast(self._read_own_last)

    def resume(self, run: Mapping[str, Any]) -> None:
        """Restore the best epoch so far from the entries about the run in ``last.pt``."""
        if run["best"] is not None:
            self.best = Best.from_state(run["best"], self.folder, self.network.num_classes)

    def settle(self, best: Best, *, kept: bool) -> None:
        """Keep or drop the best weights of a phase; then load the best weights of the run into the network.

        Args:
            best: the best epoch of the phase that has ended.
            kept: the decision of the gate; the first phase is always kept.
        """
        self._writer.wait()
        if kept:
            if (
                self.ranks.is_main and best.checkpoint.exists()
            ):  # if not, the run was killed after the move, and resumed
                os.replace(best.checkpoint, self.folder / BEST)
            self.best = replace(best, checkpoint=self.folder / BEST)
        weights = self.ranks.broadcast(lambda: load_checkpoint(self.folder / BEST)["model"])
        restore_weights(self.network, weights, self.folder / BEST)

    def replace_best(self, scores: Scores, alpha: float) -> None:
        """Write the network's weights, an average with the starting weights, as the best, and keep the former best.

        Args:
            scores: the validation scores of the average.
            alpha: share of the best epoch's weights in the average.
        """
        assert self.best is not None
        self._writer.wait()
        self.best = replace(self.best, scores=scores, alpha=alpha)
        if self.ranks.is_main:
            os.replace(self.best.checkpoint, self.folder / UNBLENDED)
        self.save_best(self.best)

    def find_best_weights(self, state: PhaseState, epochs: int) -> None:
        """Make sure that the file of the phase's best epoch has its weights, even if the run was killed while saving.

        Args:
            state: the restored state of the phase.
            epochs: completed epochs of the run.
        """
        if state.best is None:
            return
        epoch = state.best.record.epoch
        if epoch == epochs and not state.in_mid_epoch:
            self.save_best_of(state)  # perhaps killed before they were written; they are those in last.pt
        elif not self._has_weights_of(state.best):
            log.warning("resume  the weights of the best epoch, %d, are missing; the best later epoch is used.", epoch)
            state.best = None

    def clean_up(self, *, keep_last: bool) -> None:
        """Remove what only a resume needs, once the run has finished.

        Args:
            keep_last: whether ``last.pt`` and what belongs to it are kept.
        """
        if self.ranks.is_main:
            for name in (CANDIDATE,) if keep_last else (CANDIDATE, LAST, PREVIOUS, UNBLENDED):
                (self.folder / name).unlink(missing_ok=True)

    def _write(self, write: Callable[[Path, dict[str, object]], None], path: Path, content: dict[str, object]) -> None:
        self._writer.put(partial(write, path, content))

    def _content(self, **facts: Any) -> dict[str, object]:
        return checkpoint_content(self.network, self.config, self.class_to_idx, run_id=self.run_id, **facts)

    def _weights(self, state: PhaseState) -> dict[str, object]:
        """What a resumed run cannot compute: in the first phase, the blocks that learn and a digest of all others."""
        if state.number or self.config.model.weights is None:
            return {"frozen": None}
        learned, others = split_weights(self.network, state.learning)
        if self._frozen is None:
            self._frozen = digest_of(others)
        return {"weights": learned, "frozen": self._frozen}

    def _read_own_last(self) -> dict[str, Any] | None:
        content = read_last(self.folder)
        if content is not None and content.get("run_id", "") != self.run_id:
            raise CheckpointError(
                f"The checkpoints in {self.folder} were not written by the run of the run.json beside them, so it "
                "cannot be resumed from them. Put the files of the run back together, or start a new run."
            )
        return content

    def _has_weights_of(self, best: Best) -> bool:
        return self.ranks.broadcast(
            lambda: any(self._holds_weights_of(path, best) for path in (best.checkpoint, self.folder / BEST))
        )

    def _holds_weights_of(self, path: Path, best: Best) -> bool:
        try:
            content = load_checkpoint(path)
            return (content.get("epoch"), content.get("run_id", "")) == (best.record.epoch, self.run_id)
        except FormatError:
            raise
        except (FileNotFoundError, CheckpointError):
            return False
