"""The parent run in the tracking store, to which the runs of a sweep's trials belong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftexp.config import TrackingConfig
from ftexp.sweeps.study import SharedStudy
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.tracker import PARENT_RUN, Tracker

RUN_ID = "mlflow_run_id"


@contextmanager
def parent_run(shared: SharedStudy, config: TrackingConfig) -> Iterator[Tracker]:
    """Start the sweep's run, or reopen that of an earlier call; runs that start within the ``with`` belong to it."""
    study = shared.study
    with shared.locked():  # processes that start at the same time share one run
        tracker = make_tracker(config, run_name=f"sweep {study.study_name}", resumed=study.user_attrs.get(RUN_ID))
        if tracker.run_id is not None:
            study.set_user_attr(RUN_ID, tracker.run_id)
            os.environ[PARENT_RUN] = tracker.run_id
    try:
        yield tracker
    except BaseException as error:
        tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    else:
        # The last process marks the run as finished; others may still run trials of the study.
        tracker.close("RUNNING" if shared.running() else "FINISHED")
    finally:
        os.environ.pop(PARENT_RUN, None)


def record_summary(tracker: Tracker, folder: Path, best: dict[str, float]) -> None:
    """Copy the sweep's tables and plots to the store.

    Args:
        best: the best trial's value of each objective; empty where there is none.
    """
    tracker.log_metrics({f"best_{name}": value for name, value in best.items()}, step=0)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv", ".png", ".html"):
            tracker.log_artifact(path)
