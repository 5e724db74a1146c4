"""Where a run is recorded, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ftexp.config.uri import hide_credentials
from ftexp.tracking.logged_model import ModelToLog

Status = Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]

# The environment variable that names the run which new runs belong to: a sweep's, for its trials.
PARENT_RUN = "FTEXP_PARENT_RUN"


# The tag that MLflow shows as a run's description, in Markdown.
DESCRIPTION = "mlflow.note.content"


@dataclass(frozen=True, slots=True)
class Known:
    """What a store has of a run: metrics by key and step, params by key, artifacts by path."""

    metrics: set[tuple[str, int]]
    params: set[str]
    files: set[str]


class Tracker(Protocol):
    """Records one run. No method but ``known`` raises: what cannot be recorded is still in the run's own folder."""

    @property
    def run_id(self) -> str | None:
        """The store's name for the run; None when nothing is recorded."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings under flat names such as ``optimizer.head_lr``."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the values of one epoch, all at once."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file to the store, into ``folder`` there."""

    def log_data_set(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Record which data was used: its source, a digest of its content, images per split."""

    def log_model(self, model: ModelToLog) -> None:
        """Add the best network as a model that can be loaded and served; with a name, to the registry as well."""

    def known(self) -> Known | None:
        """What the store has of the run; None when nothing is recorded. Raises whatever the store does."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts about the run that are no settings."""

    def close(self, status: Status) -> None:
        """Mark the run as ended. To be called once, in a ``finally``."""


class NoTracker:
    """Records nothing."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, object]) -> None:
        """Do nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Do nothing."""

    def log_data_set(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Do nothing."""

    def log_model(self, model: ModelToLog) -> None:
        """Do nothing."""

    def known(self) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def close(self, status: Status) -> None:
        """Do nothing."""


def brief(error: BaseException) -> str:
    """An error in one short line without credentials."""
    lines = str(error).strip().splitlines() or [""]
    text = hide_credentials(f"{type(error).__name__}: {lines[0]}")
    return text if len(text) <= 300 else text[:297] + "..."
