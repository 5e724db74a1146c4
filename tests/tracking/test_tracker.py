import logging
import sys
import time
from pathlib import Path

import pytest

from ftexp.config import TrackingConfig
from ftexp.errors import ConfigError, FormatError
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.send_missing import Sent, send_missing, send_missing_if_possible
from ftexp.tracking.tracker import Known, NoTracker, brief


def test_backend_none_records_nothing_and_needs_no_mlflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import would fail
    tracker = make_tracker(TrackingConfig(backend="none"), "run")
    assert isinstance(tracker, NoTracker)
    assert tracker.run_id is None
    tracker.log_params({"a": 1})
    tracker.log_metrics({"loss": 1.0}, step=1)
    tracker.log_artifact(Path("missing"))
    tracker.set_tags({"a": "b"})
    tracker.close("FINISHED")
    assert send_missing(tracker, Path("missing")) == Sent(0, 0, 0)


class DeadStore(NoTracker):
    def known(self):
        raise ConnectionError("http://me:hunter2@host is gone")


def test_a_store_that_does_not_answer_does_not_stop_a_run_that_goes_on(tmp_path, caplog):
    with pytest.raises(ConnectionError):
        send_missing(DeadStore(), tmp_path)
    send_missing_if_possible(DeadStore(), tmp_path)
    (record,) = caplog.records
    assert record.message == (
        "What was not sent before cannot be sent now: ConnectionError: http://***@host is gone. "
        "Try python -m ftexp.sync."
    )


def test_a_uri_that_cannot_work_is_refused_with_the_configuration():
    with pytest.raises(ConfigError, match=r"tracking\.uri=\./mlruns is a folder"):
        TrackingConfig(backend="mlflow", uri="./mlruns")


@pytest.mark.parametrize(
    "uri", ["http://me:hunter2@127.0.0.1:9", "sqlite:////proc/no/such/folder/mlflow.db", "sqlite:///folder"]
)
def test_a_store_that_cannot_be_opened_is_one_warning(uri, caplog, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    started = time.perf_counter()
    with caplog.at_level(logging.DEBUG, logger="ftexp"):
        tracker = make_tracker(TrackingConfig(backend="mlflow", uri=uri), "run")
    assert isinstance(tracker, NoTracker)
    assert time.perf_counter() - started < 15
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "The run continues, and its folder has everything" in record.message
    assert "hunter2" not in caplog.text
    assert capfd.readouterr() == ("", "")  # nothing of MLflow's, SQLAlchemy's or urllib3's own


def test_an_error_in_short():
    assert brief(ValueError("first\nsecond")) == "ValueError: first"
    assert brief(ValueError("at http://me:hunter2@host")) == "ValueError: at http://***@host"
    assert brief(KeyError()) == "KeyError: "
    assert len(brief(ValueError("x" * 1000))) == 300


def test_the_warning_says_that_the_environment_names_the_store(caplog, monkeypatch, tmp_path):
    uri = f"sqlite:///{tmp_path}/file/mlflow.db"
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert isinstance(make_tracker(TrackingConfig(backend="mlflow", uri=uri), "run"), NoTracker)
    assert f"cannot open tracking.uri={uri} (from the environment variable MLFLOW_TRACKING_URI) (" in caplog.text


class EmptyStore(NoTracker):
    def known(self):
        return Known(set(), {"a"}, set())


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"config": {"a": 1}}')
    (tmp_path / "metrics.csv").write_text("epoch,val_loss\n1,x\n")
    with pytest.raises(FormatError, match=r"metrics\.csv has other fields"):
        send_missing(EmptyStore(), tmp_path)
