"""The interface to the store in which runs are recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ftexp.config.uri import hide_credentials

Status = Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]

# The environment variable with the id of the parent run; a sweep sets it for its trials.
PARENT_RUN = "FTEXP_PARENT_RUN"


# The tag that MLflow shows as a run's description, in Markdown.
DESCRIPTION = "mlflow.note.content"


@dataclass(frozen=True, slots=True)
class Known:
    """What a store already has of a run.

    Attributes:
        metrics: key and step of each metric.
        params: key of each setting.
        files: path of each artifact.
        has_model: whether the network was recorded as a model.
    """

    metrics: set[tuple[str, int]]
    params: set[str]
    files: set[str]
    has_model: bool = False


@dataclass(frozen=True, slots=True)
class ModelToLog:
    """What becomes a model of MLflow's.

    Attributes:
        checkpoint: the file with the best weights.
        epoch: that they are of.
        metrics: (name, epoch) of those of the run that are the model's.
        register_as: its name in the registry; None: it gets none.
    """

    checkpoint: Path
    epoch: int
    metrics: tuple[tuple[str, int], ...]
    register_as: str | None = None


class Tracker(Protocol):
    """Records one run. Only ``known`` raises errors of the store: all that is recorded is also in the run's folder."""

    @property
    def run_id(self) -> str | None:
        """The id of the run in the store; None if nothing is recorded."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings under flat names such as ``optimizer.head_lr``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record all metrics of an epoch at once."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file into ``folder`` of the store."""

    def log_dataset(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Record which data was used.

        Args:
            name: name of the data.
            digest: digest of its content.
            counts: number of images in each split.
        """

    def log_model(self, model: ModelToLog) -> None:
        """Add the best network as a model that can be loaded and served; with a name, to the registry as well."""

    def known(self) -> Known | None:
        """What the store already has of the run; None if nothing is recorded. Raises any error of the store."""

    def flush(self) -> None:
        """Wait until everything so far is sent, such as a file that will not be there for long."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts about the run that are not settings."""

    def close(self, status: Status) -> None:
        """Mark the run as ended; call this once, in a ``finally``."""


class NoTracker:
    """Records nothing."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def log_dataset(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Do nothing."""

    def log_model(self, model: ModelToLog) -> None:
        """Do nothing."""

    def known(self) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def close(self, status: Status) -> None:
        """Do nothing."""


def brief(error: BaseException) -> str:
    """The message of an error in one short line, without credentials."""
    lines = str(error).strip().splitlines() or [""]
    text = hide_credentials(f"{type(error).__name__}: {lines[0]}")
    return text if len(text) <= 300 else text[:297] + "..."
