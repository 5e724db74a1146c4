"""Makes the tracker that the configuration asks for."""

from __future__ import annotations

import logging

from ftexp.config import TrackingConfig
from ftexp.config.uri import uri_as_given
from ftexp.errors import ConfigError
from ftexp.tracking.tracker import NoTracker, Tracker, brief

log = logging.getLogger(__name__)


def make_tracker(config: TrackingConfig, run_name: str, resumed: str | None = None) -> Tracker:
    """Make the tracker of a run and begin to record the run with it.

    A tracking store that cannot be reached is a warning, not an error: training does not depend on it, and
    everything is in the run's folder. The attempt ends within seconds.

    Args:
        config: the store and the experiment in it.
        run_name: the name of the run in the store.
        resumed: the MLflow id of the run that is resumed, if the store has it.

    Returns:
        A ``NoTracker`` where tracking is off or the store cannot be reached.
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
        uri = uri_as_given(config.uri)
        log.warning(
            "Not tracked: %s The run continues, and its folder has everything; send it later with python -m "
            "ftexp.sync FOLDER.",
            str(error) if isinstance(error, ConfigError) else f"cannot open {uri} ({brief(error)}).",
        )
        return NoTracker()
