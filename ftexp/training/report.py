"""The interface by which training reports its progress; ``ftexp.report.recorder`` implements it."""

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
from ftexp.training.judging import JudgedLabels
from ftexp.training.solve import SolvedHead


class Report(Protocol):
    """Records the progress of a run, and keeps what is needed to resume it."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""

    def plan(self, phases: Sequence[Phase], network: Network, spans: Sequence[Span]) -> None:
        """Record the plan; called before the first phase.

        Args:
            phases: the planned phases.
            network: the network.
            spans: length of each phase.
        """

    def start_phase(self, phase: Phase, groups: Sequence[dict[str, object]]) -> None:
        """Record the beginning of a phase.

        Args:
            phase: the phase.
            groups: the rows of ``group_table``: which tensors are trainable, at which rate.
        """

    def solved(self, head: SolvedHead) -> None:
        """Record a solved head; called before its epoch, or before the first phase that starts from it."""

    def start(self, record: EpochRecord) -> None:
        """Record the scores of a solved head before the first epoch."""

    def labels(self, judged: JudgedLabels) -> None:
        """Record how many labels look wrong; called before the first phase."""

    def epoch(self, record: EpochRecord) -> None:
        """Record an epoch; called after it has been saved."""

    def time_plan(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Record what fits into ``train.max_minutes``, with an entry for each phase that was begun."""

    def end_phase(self, phase: Phase, best: Best, verdict: Verdict | None) -> None:
        """Record the end of a phase.

        Args:
            phase: the phase.
            best: the best epoch of the phase.
            verdict: the decision of the gate; None for the first phase, which is not compared.
        """

    def skip(self, phases: Sequence[Phase], best_case: Verdict, num_samples: int) -> None:
        """Record phases that are not begun, because the gate could not keep them.

        Args:
            phases: the phases.
            best_case: what the gate would decide about a phase that gets every validation sample right.
            num_samples: number of validation samples.
        """

    def state(self) -> dict[str, object]:
        """What is needed to resume the run, as plain data, except for the epochs."""

    def resume(self, state: Mapping[str, Any], history: Sequence[EpochRecord]) -> None:
        """Restore what ``state`` returned, and the epochs so far."""

    def send_missing(self) -> None:
        """Send the tracking store what was saved but not sent before the run was stopped."""
