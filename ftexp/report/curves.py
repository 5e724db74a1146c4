"""The epochs of a run so far, and what their curves say about the phase that is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from ftexp.evaluation.diagnosis import Diagnosis, Setting, diagnose
from ftexp.evaluation.history import EpochRecord
from ftexp.finetune.phases import Phase


@dataclass(slots=True)
class Curves:
    """The epochs of a run.

    Attributes:
        setting: the metric that selects the best epoch, and the reference values for the diagnosis.
        records: all epochs so far, of a resumed run also those before.
        diagnosis: of the phase that is trained; None before its first epoch.
    """

    setting: Setting
    records: list[EpochRecord] = field(default_factory=list)
    diagnosis: Diagnosis | None = None
    _solved: bool = False

    def of(self, phase: str) -> list[EpochRecord]:
        """The epochs of a phase."""
        return [record for record in self.records if record.phase == phase]

    def start_phase(self, phase: Phase) -> None:
        """Begin a phase, or go on with it: then the epochs that it has are diagnosed."""
        self._solved, records = phase.solved, self.of(phase.name)
        self.diagnosis = self._diagnose(phase.name) if records else None

    def add(self, record: EpochRecord) -> Diagnosis | None:
        """Add an epoch of the phase; a diagnosis that is new and has a remedy is returned."""
        before = self.diagnosis
        self.records.append(record)
        self.diagnosis = found = self._diagnose(record.phase)
        is_new = before is None or before.signal != found.signal
        return found if found.override and is_new else None

    def _diagnose(self, phase: str) -> Diagnosis:
        return diagnose(self.of(phase), self.setting, solved=self._solved)
