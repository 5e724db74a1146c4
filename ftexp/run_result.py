"""The result of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftexp.errors import CheckpointError
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json
from ftexp.files.run_files import HISTORY, RESULT

if TYPE_CHECKING:
    import pandas as pd

    from ftexp.inference.classifier import Classifier

INTERVAL = "_ci95"


@dataclass(frozen=True, slots=True)
class BestEpoch:
    """The epoch whose weights are in ``checkpoints/best.pt``.

    Attributes:
        epoch: the number of the epoch, counted from 1 over all phases of the run; 0: the solved head it started
            from.
        metrics: name -> value on the validation set, ``loss`` included. NaN where the value is not finite.
    """

    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """The result of a run; ``result.json`` in its folder has the confidence intervals and further details.

    Attributes:
        folder: the folder of the run, with all its files.
        metric: the value of ``train.metric``, the metric that decides which epoch is the best.
        value: that metric on the validation set at the best epoch.
        best: the best epoch and its validation metrics; with ``train.wise_ft`` those of the averaged weights.
        test: name -> value on the test split, with the names of ``best.metrics``; None if it was not scored.
        verdicts: phase -> ``kept``, ``dropped`` by the gate, or ``skipped`` because an earlier phase was dropped, or
            because the gate could not have kept it.
        mlflow_run_id: the ID in the tracking store; None if the run is not tracked.
        images_per_second: the training throughput, without validation, as the mean over the epochs.
        peak_memory_mib: the peak memory of the device, or of the process on a CPU, in MiB.
        seconds: the duration of the run, from the parsed configuration to the result.
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
        """Make the result of a finished run from the content of its ``result.json``."""
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
        """Read the result of the run in a folder.

        Raises:
            CheckpointError: when the folder holds no finished run, or its ``result.json`` is damaged.
        """
        file = folder / RESULT
        content = read_json(file) if file.exists() else {}
        if content.get("status") != "finished":
            raise CheckpointError(f"{folder} holds no finished run.")
        with reading(file):
            return cls.of(folder, content)

    def __repr__(self) -> str:
        test = "" if self.test is None else f", test {self.metric} {self.test[self.metric]:.4f}"
        return f"RunResult({self.folder}: val {self.metric} {self.value:.4f} at epoch {self.best.epoch}{test})"

    @property
    def classifier(self) -> Classifier:
        """The network with the best weights, loaded from the folder.

        Raises:
            CheckpointError: when ``best.pt`` is no longer there, or damaged.
        """
        from ftexp.inference.load import load

        return load(self.folder)

    @property
    def history(self) -> pd.DataFrame:
        """Every epoch in a row: ``metrics.csv``."""
        import pandas as pd

        return pd.read_csv(self.folder / HISTORY)

    @property
    def result(self) -> dict[str, Any]:
        """All that ``result.json`` holds: scores with intervals, phases, diagnosis, times."""
        return read_json(self.folder / RESULT)

    def objective(self, name: str) -> float:
        """Return a value that ``sweep.objectives`` can name: ``val_METRIC``, ``val_loss``, or a field of this class."""
        return self.best.metrics[name.removeprefix("val_")] if name.startswith("val_") else float(getattr(self, name))


def _is_score(name: str) -> bool:
    return name.startswith("val_") and not name.endswith(INTERVAL)


def _number(value: float | None) -> float:
    """Convert null, which JSON has in place of a number that is not finite, to NaN."""
    return math.nan if value is None else float(value)
