"""What a run came to, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftexp.cli.resume_arguments import RESULT
from ftexp.errors import CheckpointError
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json

INTERVAL = "_ci95"


@dataclass(frozen=True, slots=True)
class BestEpoch:
    """The epoch whose weights are in ``checkpoints/best.pt``.

    Attributes:
        epoch: from 1, over all phases of the run.
        metrics: name -> value on validation; ``loss`` among them. NaN where it is not finite.
    """

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to; ``result.json`` in its folder has the intervals and all the rest.

    Attributes:
        folder: of the run, with everything that it left behind.
        metric: ``train.metric``, which decided which epoch is the best.
        value: of that metric at the best epoch, on validation.
        best: the best epoch and its validation metrics; with ``train.wise_ft`` those of the averaged weights.
        test: name -> value on the test split, the names being those of ``best``; None: it was not scored.
        verdicts: phase -> ``kept``, ``dropped`` by the gate, or ``skipped`` because one before it was dropped.
        mlflow_run_id: None where the run is not tracked.
        images_per_second: training alone, the mean over the epochs.
        peak_memory_mib: MiB of the device, or of the process on a CPU.
        seconds: from the configuration to the result.
    """

    folder: Path
    metric: str
    value: float
    best: BestEpoch
    test: Mapping[str, float] | None
    verdicts: Mapping[str, str]
    mlflow_run_id: str | None
    images_per_second: float
    peak_memory_mib: float
    seconds: float

    @classmethod
    def of(cls, folder: Path, content: Mapping[str, Any]) -> RunResult:
        """Of a run that has finished.

        Args:
            content: of its ``result.json``.
        """
        scores = {name.removeprefix("val_"): value for name, value in content["best"].items() if _is_score(name)}
        metrics = {name: _number(value) for name, value in scores.items()}
        test = content["test"]
        return cls(
            folder=folder,
            metric=content["metric"],
            value=metrics[content["metric"]],
            best=BestEpoch(content["best"]["epoch"], metrics),
            test={name: _number(test[name]) for name in metrics} if test else None,
            verdicts={phase["name"]: phase["verdict"] for phase in content["phases"]},
            mlflow_run_id=content["mlflow_run_id"],
            images_per_second=_number(content["images_per_second"]),
            peak_memory_mib=_number(content["peak_memory_mib"]),
            seconds=_number(content["seconds"]),
        )

    @classmethod
    def read(cls, folder: Path) -> RunResult:
        """Of the run in a folder.

        Raises:
            CheckpointError: when there is none that has finished, or its ``result.json`` is damaged.
        """
        file = folder / RESULT
        content = read_json(file) if file.exists() else {}
        if content.get("status") != "finished":
            raise CheckpointError(f"{folder} holds no run that has finished.")
        with reading(file):
            return cls.of(folder, content)

    def objective(self, name: str) -> float:
        """One of the values that ``sweep.objectives`` may name: ``val_METRIC``, ``val_loss``, or a field."""
        return self.best.metrics[name.removeprefix("val_")] if name.startswith("val_") else float(getattr(self, name))


def _is_score(name: str) -> bool:
    return name.startswith("val_") and not name.endswith(INTERVAL)


def _number(value: float | None) -> float:
    """JSON has null in the place of a number that is not finite."""
    return math.nan if value is None else float(value)
