"""Where a run is recorded, behind one small interface."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from ftexp.config import TrackingConfig
from ftexp.config.uri import hide_credentials

if TYPE_CHECKING:
    from ftexp.data.samples import Sample
    from ftexp.models.blocks import Network

Status = Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]

# The environment variable that names the run which new runs belong to: a sweep's, for its trials.
PARENT_RUN = "FTEXP_PARENT_RUN"

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Records one run. No method raises: what cannot be recorded is still in the run's own folder."""

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

    def log_model(self, network: Network, checkpoint: Path, example: Sample, register_as: str | None) -> None:
        """Add the best network as a model that can be loaded and served; with a name, to the registry as well."""

    def send_missing(self, folder: Path) -> None:
        """Send what stands in the folder of an interrupted run and has not arrived."""

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

    def log_model(self, network: Network, checkpoint: Path, example: Sample, register_as: str | None) -> None:
        """Do nothing."""

    def send_missing(self, folder: Path) -> None:
        """Do nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def close(self, status: Status) -> None:
        """Do nothing."""


def open_tracker(config: TrackingConfig, run_name: str, resumed: str | None = None) -> Tracker:
    """Begin to record a run.

    A store that cannot be reached is a warning, not an error: training does not depend on it, and
    everything is in the run's folder. The attempt is over within seconds.

    Args:
        config: the store and the experiment in it.
        run_name: how the run is called in lists.
        resumed: the id of a run to go on with, where the store has it.
    """
    if config.backend == "none":
        return NoTracker()
    assert config.uri, "TrackingConfig checks this"
    from ftexp.tracking.mlflow_tracker import MlflowTracker  # MLflow takes seconds to import

    try:
        tracker = MlflowTracker.start(config.uri, config.experiment, run_name, resumed)
        if config.system_metrics:
            tracker.watch_machine(resumed is not None)
        return tracker
    except Exception as error:  # any failure of a store, its driver or its server ends here
        log.warning(
            "Not tracked: cannot open tracking.uri=%s (%s). The run goes on and keeps everything in its folder; "
            "send it later with python -m ftexp.sync FOLDER.",
            hide_credentials(config.uri),
            brief(error),
        )
        return NoTracker()


def brief(error: BaseException) -> str:
    """An error in one short line without credentials."""
    lines = str(error).strip().splitlines() or [""]
    text = hide_credentials(f"{type(error).__name__}: {lines[0]}")
    return text if len(text) <= 300 else text[:297] + "..."
