from pathlib import Path

import pytest

from ftexp.config import TrackingConfig
from ftexp.config.uri import at_home, check_uri, hide_credentials, sqlite_file
from ftexp.errors import ConfigError


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",
        "sqlite:////var/lib/runs.db",
        "postgresql+psycopg2://me:secret@db/runs",
        "http://127.0.0.1:5000",
        "https://me:secret@tracking.example.org/mlflow",
        "databricks",
        "databricks://profile",
    ],
)
def test_stores_that_mlflow_has(uri):
    check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("./mlruns", "is a folder, and MLflow 3 does not store runs in folders. .* sqlite:///mlflow.db"),
        ("file:///tmp/mlruns", "is a folder"),
        ("htpp://server:5000", "begins with 'htpp'.* Did you mean 'http'?"),
        ("s3://bucket", "'s3', which is not a kind of tracking store. Allowed are sqlite, postgresql"),
        ("sqlite://", "names no file. Write sqlite:///FILE"),
        ("sqlite:mlflow.db", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_stores_that_cannot_work_are_refused(uri, message):
    with pytest.raises(ConfigError, match=message):
        check_uri(uri)


def test_a_refusal_does_not_show_the_password():
    with pytest.raises(ConfigError) as caught:
        check_uri("htp://me:hunter2@server")
    assert "hunter2" not in str(caught.value)
    assert "htp://***@server" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("request to http://me:hunter2@host failed", "request to http://***@host failed"),
        ("postgresql://me:p@ss/w0rd@db/runs", "postgresql://***@db/runs"),
        ("http://token@host", "http://***@host"),
        (
            "postgresql://db/runs?user=me&password=hunter2&sslmode=on",
            "postgresql://db/runs?user=me&password=***&sslmode=on",
        ),
        ("http://host/path", "http://host/path"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_credentials_are_hidden(text, shown):
    assert hide_credentials(text) == shown


def test_the_file_behind_a_sqlite_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sqlite_file("sqlite:///runs/mlflow.db") == tmp_path / "runs" / "mlflow.db"
    assert sqlite_file(f"sqlite:///{tmp_path}/a.db?timeout=9") == tmp_path / "a.db"
    assert sqlite_file("http://host") is None


@pytest.mark.parametrize("uri", ["./mlruns", "htp://me:hunter2@server", "sqlite://", ""])
def test_a_uri_of_the_environment_is_said_to_come_from_there(uri, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        TrackingConfig(backend="mlflow", uri=uri)
    assert "MLFLOW_TRACKING_URI" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(
        ConfigError, match=r"^tracking\.uri=\S* \(from the environment variable MLFLOW_TRACKING_URI\) "
    ) as named:
        TrackingConfig(backend="mlflow", uri=uri)
    assert "hunter2" not in str(named.value)


def test_a_tilde_in_a_database_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert sqlite_file("sqlite:///~/runs/mlflow.db") == Path("/home/me/runs/mlflow.db")
    assert at_home("sqlite:///~/study.db") == "sqlite:////home/me/study.db"
    assert at_home("journal:///~/study.journal") == "journal:////home/me/study.journal"
    assert at_home("postgresql+psycopg://me@host/~x") == "postgresql+psycopg://me@host/~x"
    assert at_home("") == ""
