"""What training tells of its course; ``ftexp.report.recorder`` writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ftexp.evaluation.best import Best
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Span
from ftexp.models.blocks import Network


class Report(Protocol):
    """Is told of the course of a run, and keeps what of it has to be known when the run is resumed."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""

    def plan(self, phases: Sequence[Phase], network: Network, spans: Sequence[Span]) -> None:
        """To be called before the first phase.

        Args:
            spans: how long each phase is.
        """

    def start_phase(self, phase: Phase, groups: Sequence[dict[str, object]]) -> None:
        """To be called before a phase trains.

        Args:
            groups: the rows of ``group_table``: which tensors learn at which rate.
        """

    def epoch(self, record: EpochRecord) -> None:
        """To be called after every epoch, when it has been saved."""

    def end_phase(self, phase: Phase, best: Best, verdict: Verdict | None) -> None:
        """To be called after a phase.

        Args:
            best: epoch of the phase.
            verdict: what the gate decided; None for the first phase, which has nothing to be compared with.
        """

    def state(self) -> dict[str, object]:
        """What has to be known when the run is resumed, as plain data; the epochs aside."""

    def resume(self, state: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
        """Go on from where ``state`` was called, after these epochs."""

    def send_missing(self) -> None:
        """Give the tracking store what was saved and not sent before the run was stopped."""
