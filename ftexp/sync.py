"""``python -m ftexp.sync FOLDER [tracking.uri=URI]``: send to the tracking store what it lacks of a run.

It can be repeated: only what is missing is sent.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ftexp.cli.program import end_program, make_parser
from ftexp.config.uri import check_uri
from ftexp.errors import CheckpointError, ConfigError, UserError
from ftexp.files.file_format import reading
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import IDENTITY
from ftexp.run_folder import locked


def main(arguments: list[str] | None = None) -> int:
    """Read the command, sync, and print one line that says what was sent; returns the exit code."""
    parser = make_parser("sync", "Send to the tracking store what it lacks of a run.", "outputs/DATE/TIME")
    parser.add_argument("folder", type=Path, help="the folder of the run, such as outputs/2026-11-24/09-30-00-123456")
    parser.add_argument("uri", nargs="?", help="tracking.uri=URI: a store other than that of the run")
    parser.add_argument("experiment", nargs="?", help="tracking.experiment=NAME: another experiment")
    given = parser.parse_args(arguments)

    def task() -> int:
        uri, experiment = _settings([text for text in (given.uri, given.experiment) if text])
        print(sync(given.folder.expanduser(), uri, experiment))
        return 0

    return end_program(task, {"The folder of the run": given.folder.absolute()})


def _command(folder: Path) -> str:
    return shlex.join(["python", "-m", "ftexp.sync", str(folder)])


def _settings(given: Sequence[str]) -> tuple[str | None, str | None]:
    """The store and the experiment that the command names, if any."""
    named = [text.removeprefix("tracking.experiment=") for text in given if text.startswith("tracking.experiment=")]
    uris = [text.removeprefix("tracking.uri=") for text in given if not text.startswith("tracking.experiment=")]
    unknown = [text for text in uris if re.match(r"[\w./]+=", text)]
    if unknown or len(uris) > 1 or len(named) > 1:
        raise ConfigError(
            f"{' '.join(given)}: give a folder and optionally tracking.uri=URI and tracking.experiment=NAME, each "
            "once, and no other settings."
        )
    return next(iter(uris), None), next(iter(named), None)


def sync(folder: Path, uri: str | None, experiment: str | None = None) -> str:
    """Send to the tracking store what it lacks of a run.

    Args:
        folder: the folder of the run.
        uri: the tracking store; None: that of the run.
        experiment: the experiment in it; None: that of the run.

    Returns:
        One line that says what was sent.

    Raises:
        UserError: when the folder holds no run, when the run is still in progress, or when the store cannot be reached.
    """
    if not (folder / IDENTITY).exists():
        raise ConfigError(f"{folder} has no {IDENTITY}, so no run began to train there. Give the folder of a run.")
    identity = read_json(folder / IDENTITY)
    with reading(folder / IDENTITY):
        name, tracking = identity["config"]["model"]["name"], identity["config"]["tracking"]
        uri, experiment = uri or tracking["uri"], experiment or tracking["experiment"]
        run_id = identity["mlflow_run_id"]
    if not uri or "***" in uri:
        why = "does not keep the password of its store" if uri else "was not tracked"
        raise ConfigError(f"The run in {folder} {why}. Name the store: {_command(folder)} tracking.uri=URI.")
    check_uri(uri)
    from ftexp.tracking.mlflow_tracker import MlflowTracker  # MLflow takes seconds to import
    from ftexp.tracking.send_missing import send_missing, status_of
    from ftexp.tracking.tracker import brief

    with locked(folder):
        status = status_of(folder)
        try:
            tracker = MlflowTracker.start(uri, experiment, name, run_id)
            sent = send_missing(tracker, folder)
        except UserError:
            raise
        except Exception as error:  # the store, its driver and its server each raise errors of their own
            raise CheckpointError(f"Sending to {uri} failed ({brief(error)}). Check that the store works.") from error
        identity["mlflow_run_id"] = tracker.run_id
        write_json(folder / IDENTITY, identity)
        tracker.close(status)
        if tracker.failure is not None:
            raise CheckpointError(
                f"Sending to {uri} stopped: {tracker.failure}. Check that the store works, then run the same command "
                "again: it sends what is missing."
            )
    if not any((sent.metrics, sent.params, sent.files, sent.models)):
        return f"{folder}: nothing was missing in run {tracker.run_id}."
    counts = f"values {sent.metrics}, settings {sent.params}, files {sent.files}, models {sent.models}"
    return f"{folder}: sent to run {tracker.run_id}: {counts}."


if __name__ == "__main__":
    sys.exit(main())
