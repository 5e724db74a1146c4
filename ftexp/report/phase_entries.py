"""The entries of phases in ``result.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ftexp.evaluation.best import Best
from ftexp.evaluation.diagnosis import Diagnosis
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.finetune.phases import Phase


def phase_entry(
    phase: Phase,
    records: Sequence[EpochRecord],
    best: Best,
    metric: str,
    verdict: Verdict | None,
    diagnosis: Diagnosis | None,
    trainable: int,
) -> dict[str, object]:
    """The entry of a phase that was trained.

    Args:
        phase: the phase.
        records: its epochs.
        best: its best epoch.
        metric: ``train.metric``.
        verdict: the decision of the gate; None for the first phase, which is not compared.
        diagnosis: of its curves.
        trainable: number of trainable parameters.
    """
    entry: dict[str, object] = {
        "name": phase.name,
        "epochs": len(records),
        "trainable_parameters": trainable,
        "seconds": sum(record.seconds for record in records),
        "solver": "solved" if phase.solved else "sgd",
        "verdict": "kept" if verdict is None or verdict.kept else "dropped",
        "best_epoch": best.record.epoch,
        f"val_{metric}": best.scores.metric(metric),
        "diagnosis": asdict(diagnosis) if diagnosis else None,
    }
    return entry if verdict is None else {**entry, "gate": asdict(verdict)}


def skipped_entry(name: str, best_case: Verdict | None = None) -> dict[str, object]:
    """The entry of a phase that was not begun.

    Args:
        name: of the phase.
        best_case: the verdict on a perfect result, if the phase was skipped because even that would not be kept.
    """
    entry: dict[str, object] = {"name": name, "epochs": 0, "verdict": "skipped"}
    return entry if best_case is None else {**entry, "best_case": asdict(best_case)}
