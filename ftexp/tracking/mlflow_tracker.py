"""Records runs in MLflow through its client only, without global state and without an active run."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ftexp.config.uri import hide_credentials
from ftexp.tracking.logged_model import log_model
from ftexp.tracking.mlflow_store import RUN_LIMITS, START_LIMITS, open_run, quiet
from ftexp.tracking.tracker import Known, ModelToLog, Status, brief

# MLflow's limits per batch and per value.
MAX_PER_BATCH = 100
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
CUT_MARK = " [cut]"

log = logging.getLogger(__name__)


class MlflowTracker:
    """One MLflow run. A separate thread writes to it, so that no epoch waits for the store.

    The first call that fails gives one warning; after that, nothing more is sent.
    """

    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self._client = client
        self._uri = uri
        self._run_id = run_id
        self._failure: str | None = None
        self._model_failure: str | None = None  # which does not keep the rest from being sent
        self._monitor: Any = None
        self._sent: dict[tuple[str, int], Any] = {}  # MLflow's metrics, by name and step
        self._dataset: tuple[str, str] | None = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="mlflow")  # one thread keeps the order

    @classmethod
    def start(cls, uri: str, experiment: str, run_name: str, resumed: str | None = None) -> MlflowTracker:
        """Start a run in a store, or reopen one; the arguments are those of ``mlflow_store.open_run``."""
        return cls(*open_run(uri, experiment, run_name, resumed))

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    @property
    def failure(self) -> str | None:
        """What was not recorded and why, in one line; None if everything was. After ``flush`` or ``close``."""
        return self._failure or self._model_failure

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record settings; a value that exceeds MLflow's limit is cut and marked."""
        from mlflow.entities import Param

        items = [Param(_key(name), _cut(_text(value), MAX_PARAM_LENGTH)) for name, value in params.items()]
        for batch in _batches(items):
            self._send("params", partial(self._client.log_batch, self._run_id, params=batch))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the metrics of an epoch in one batch."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        items = [Metric(_key(name), float(value), now_ms, step) for name, value in metrics.items()]
        self._sent |= {(name, step): item for name, item in zip(metrics, items, strict=True)}
        self._send("metrics", partial(self._client.log_batch, self._run_id, metrics=items))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Copy a file to the run's artifacts."""
        self._send(f"file {path.name}", partial(self._client.log_artifact, self._run_id, str(path), folder or None))

    def log_dataset(self, name: str, digest: str, counts: Mapping[str, int]) -> None:
        """Record the data of the run as MLflow's dataset inputs; no image leaves the machine.

        Args:
            name: name of the data.
            digest: digest of its content.
            counts: number of images in each split.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = json.dumps({f"num_{split}": count for split, count in counts.items()})
        source = json.dumps({"data": name})
        self._dataset = name[:500], digest[:36]
        dataset = Dataset(*self._dataset, "local", source, schema=None, profile=profile)
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        self._send("dataset", partial(self._client.log_inputs, self._run_id, inputs))

    def log_model(self, model: ModelToLog) -> None:
        """Record the best network as an MLflow model; if that fails, there is a warning, and all else is recorded."""
        from mlflow.entities import Metric

        sent = [self._sent[metric] for metric in model.metrics if metric in self._sent]
        name, digest = self._dataset or (None, None)
        metrics = [Metric(**{**dict(one), "dataset_name": name, "dataset_digest": digest}) for one in sent]

        def log_or_warn() -> None:
            try:
                log_model(self._client, self._uri, self._run_id, model, metrics)
            except Exception as error:  # MLflow raises many kinds
                self._model_failure = f"model not recorded: {brief(error)}"
                log.warning(
                    "The network was not recorded as an MLflow model: %s. It is in checkpoints/best.pt.", brief(error)
                )

        self._send("model", log_or_warn)

    def watch_machine(self, resumed: bool) -> None:
        """Record the load of the machine until the run is closed; MLflow does this in its own thread."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self._run_id, resume_logging=resumed, tracking_uri=self._uri)
        self._monitor.start()

    def flush(self) -> None:
        """Wait until everything so far has been sent."""
        self._sender.submit(lambda: None).result()

    def known(self) -> Known:
        """What the store already has of the run."""
        self.flush()
        with quiet(RUN_LIMITS):
            run = self._client.get_run(self._run_id)
            data = run.data
            histories = [self._client.get_metric_history(self._run_id, key) for key in data.metrics]
            folders = ["", *(f.path for f in self._client.list_artifacts(self._run_id) if f.is_dir)]
            files = [f.path for folder in folders for f in self._client.list_artifacts(self._run_id, folder or None)]
        self._sent |= {(metric.key, metric.step): metric for history in histories for metric in history}
        return Known(
            metrics=set(self._sent),
            params=set(data.params),
            files=set(files),
            has_model=bool(run.outputs and run.outputs.model_outputs),
        )

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record tags; a value that exceeds MLflow's limit is cut and marked."""
        from mlflow.entities import RunTag

        items = [RunTag(_key(name), _cut(_text(value), MAX_TAG_LENGTH)) for name, value in tags.items()]
        for batch in _batches(items):
            self._send("tags", partial(self._client.log_batch, self._run_id, tags=batch))

    def close(self, status: Status) -> None:
        """Send all that is waiting, and end the run; also after a failure, so that the run is not listed as running."""
        if self._monitor is not None:
            with quiet(RUN_LIMITS):
                self._monitor.finish()
        self._send("status", partial(self._client.set_terminated, self._run_id, status))
        self._sender.shutdown()
        if self._failure is None:
            return
        try:
            with quiet(START_LIMITS):
                self._client.set_tag(self._run_id, "ftexp.incomplete", _cut(self._failure, MAX_TAG_LENGTH))
                self._client.set_terminated(self._run_id, status)
        except Exception as error:
            log.debug("The run could not be ended in MLflow: %s", brief(error))

    def _send(self, what: str, call: Callable[[], object]) -> None:
        self._sender.submit(self._send_now, what, call)

    def _send_now(self, what: str, call: Callable[[], object]) -> None:
        if self._failure is not None:
            return
        try:
            with quiet(RUN_LIMITS):
                call()
        except Exception as error:  # an error of the store must never end a run
            self._failure = f"{what} not recorded: {brief(error)}"
            log.warning(
                "Tracking stops: %s. The run's folder has everything; send it later with python -m ftexp.sync FOLDER.",
                self._failure,
            )


def _key(name: str) -> str:
    """The name with only characters that MLflow allows: ``phases[0].lr`` becomes ``phases_0_.lr``."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:MAX_KEY_LENGTH]


def _text(value: object) -> str:
    """The value as text, as it would be written on the command line."""
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
