"""Recording in MLflow, through its client alone: no global state, no active run."""

from __future__ import annotations

import getpass
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftexp.config.uri import hide_credentials, sqlite_file
from ftexp.data.samples import Sample
from ftexp.models.blocks import Network
from ftexp.tracking.tracker import PARENT_RUN, Status, brief

# MLflow's own limits, per batch and per value.
MAX_PER_BATCH = 100
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
CUT_MARK = " [cut]"

# How long another process may take to create the tables of a fresh database.
LOCK_TIMEOUT_SECONDS = 120

# MLflow's defaults (120 s, 7 retries with growing pauses) would hold a run up for minutes. A user's own
# setting of these variables wins.
START_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
RUN_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# No report home from a fine-tuning run, and no advice to coding agents on the terminal. These two stay set:
# MLflow looks at them again with every call.
PRIVACY = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_DISABLE_AGENT_HINT": "true"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What a store has of a run: metrics by key and step, params by key, artifacts by path."""

    metrics: set[tuple[str, int]]
    params: set[str]
    files: set[str]


class MlflowTracker:
    """One MLflow run, written to by a thread of its own, so that no epoch waits for the store.

    The first call that fails gives one warning; after it nothing more is sent.
    """

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self._client = client
        self._uri = uri
        self._run_id = run_id
        self._failure: str | None = None
        self._monitor: Any = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow")  # one: everything arrives in its order

    @classmethod
    def start(cls, uri: str, experiment: str, run_name: str, resumed: str | None = None) -> MlflowTracker:
        """Open the store, make the experiment where it is missing, and begin a run or go on with one.

        Raises:
            Exception: whatever MLflow, the database driver or the file lock raises.
        """
        for name, value in PRIVACY.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # sets the levels of its loggers, so it has to come before _quiet

        with _quiet(START_LIMITS), ExitStack() as stack:
            database = sqlite_file(uri)
            artifacts = None
            if database is not None:
                database.parent.mkdir(parents=True, exist_ok=True)
                uri = f"sqlite:///{database}"
                # Absolute and beside the database: the UI finds the files from whatever folder it is started in.
                folder = re.sub(r"[^\w.-]", "_", experiment).lstrip(".") or "_"
                artifacts = (database.parent / "mlruns" / folder).as_uri()
                # Processes that start at once on a fresh file would trip over each other's CREATE TABLE.
                stack.enter_context(FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT_SECONDS))
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment_id = _find_or_create_experiment(client, experiment, artifacts)
            if resumed is not None and _reopened(client, resumed):
                return cls(client, resumed, uri)
            run = client.create_run(experiment_id, run_name=run_name, tags=_origin())
        return cls(client, run.info.run_id, uri)

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; a value beyond MLflow's limit is cut and marked."""
        from mlflow.entities import Param

        items = [Param(_key(name), _cut(_text(value), MAX_PARAM_LENGTH)) for name, value in params.items()]
        for batch in _batches(items):
            self._send("params", partial(self._client.log_batch, self._run_id, params=batch))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the values of one epoch in one batch."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        items = [Metric(_key(name), float(value), now_ms, step) for name, value in metrics.items()]
        self._send("metrics", partial(self._client.log_batch, self._run_id, metrics=items))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file to the run's artifacts."""
        self._send(f"file {path.name}", partial(self._client.log_artifact, self._run_id, str(path), folder or None))

    def log_data_set(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Record which data the run used, as MLflow's data set inputs; no image leaves the machine."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({f"num_{split}": count for split, count in counts.items()})
        source = json.dumps({"data": name})
        data_set = Dataset(name[:500], digest[:36], "local", source, schema=None, profile=profile)
        inputs = [DatasetInput(data_set, [InputTag("mlflow.data.context", "training")])]
        self._send("data set", partial(self._client.log_inputs, self._run_id, inputs))

    def log_model(self, network: Network, checkpoint: Path, example: Sample, register_as: str | None) -> None:
        """Add the best network as an MLflow model; one that cannot be is a warning, and all else is recorded."""

        def log_or_warn() -> None:
            from ftexp.tracking.model_package import log_model

            try:
                log_model(self._uri, self._run_id, network, checkpoint, example, register_as)
            except Exception as error:  # whatever torch.export or MLflow says
                log.warning("No MLflow model of %s: %s. checkpoints/best.pt has it.", network.name, brief(error))

        self._send("model", log_or_warn)

    def watch_machine(self, resumed: bool) -> None:
        """Record the load of the machine until the run is closed; MLflow does it, in a thread of its own."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=resumed, tracking_uri=self._uri)
        self._monitor.start()

    def flush(self) -> None:
        """Wait until everything so far has been sent."""
        self._sender.submit(lambda: None).result()

    def known(self) -> Known:
        """What the store has of the run; for sending the rest."""
        self.flush()
        with _quiet(RUN_LIMITS):
            data = self._client.get_run(self._run_id).data
            histories = [self._client.get_metric_history(self._run_id, key) for key in data.metrics]
            folders = ["", *(f.path for f in self._client.list_artifacts(self._run_id) if f.is_dir)]
            files = [f.path for folder in folders for f in self._client.list_artifacts(self._run_id, folder or None)]
        return Known(
            metrics={(metric.key, metric.step) for history in histories for metric in history},
            params=set(data.params),
            files=set(files),
        )

    def send_missing(self, folder: Path) -> None:
        """Send what stands in the folder of an interrupted run and has not arrived."""
        from ftexp.tracking.sync import send_missing  # which needs this class

        try:
            send_missing(self, folder)
        except Exception as error:
            log.warning("What was not sent before cannot be sent now: %s. Try python -m ftexp.sync.", brief(error))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a value beyond MLflow's limit is cut and marked."""
        from mlflow.entities import RunTag

        items = [RunTag(_key(name), _cut(_text(value), MAX_TAG_LENGTH)) for name, value in tags.items()]
        for batch in _batches(items):
            self._send("tags", partial(self._client.log_batch, self._run_id, tags=batch))

    def close(self, status: Status) -> None:
        """Send what waits and end the run. Tried even after a failure, so that no dead run is listed as running."""
        if self._monitor is not None:
            with _quiet(RUN_LIMITS):
                self._monitor.finish()
        self._send("status", partial(self._client.set_terminated, self._run_id, status))
        self._sender.shutdown()
        if self._failure is None:
            return
        try:
            with _quiet(START_LIMITS):
                self._client.set_tag(self._run_id, "ftexp.incomplete", _cut(self._failure, MAX_TAG_LENGTH))
                self._client.set_terminated(self._run_id, status)
        except Exception as error:
            log.debug("The run stays open in MLflow: %s", brief(error))

    def _send(self, what: str, call: Callable[[], object]) -> None:
        self._sender.submit(self._send_now, what, call)

    def _send_now(self, what: str, call: Callable[[], object]) -> None:
        if self._failure is not None:
            return
        try:
            with _quiet(RUN_LIMITS):
                call()
        except Exception as error:  # tracking never ends a run, whatever is wrong with the store
            self._failure = f"{what} not recorded: {brief(error)}"
            log.warning(
                "Tracking stops here, training goes on: %s. The run's folder has everything; send it later with "
                "python -m ftexp.sync FOLDER.",
                self._failure,
            )


def _find_or_create_experiment(client: Any, name: str, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody else made it just now
            if found is None:
                raise
    return str(found.experiment_id)


def _reopened(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:  # of another store, or deleted
        return False
    return True


def _origin() -> dict[str, str]:
    """What MLflow's own fluent interface records, for the columns of its run table."""
    tags = {"mlflow.source.name": "ftexp", "mlflow.source.type": "LOCAL"}
    if PARENT_RUN in os.environ:
        tags["mlflow.parentRunId"] = os.environ[PARENT_RUN]
    with suppress(KeyError, OSError):  # a container's user id without a name
        tags["mlflow.user"] = getpass.getuser()
    return tags


@contextmanager
def _quiet(limits: Mapping[str, str]) -> Iterator[None]:
    """Bound MLflow's waiting and keep its libraries' chatter off the terminal, for the duration of one call."""
    added = {name: value for name, value in limits.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "sqlalchemy", "urllib3")]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def _key(name: str) -> str:
    """``name`` in the characters that MLflow allows: ``phases[0].lr`` becomes ``phases_0_.lr``."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:MAX_KEY_LENGTH]


def _text(value: object) -> str:
    """As one would write it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return hide_credentials(str(value))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT_MARK)] + CUT_MARK


def _batches(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), MAX_PER_BATCH):
        yield items[start : start + MAX_PER_BATCH]
