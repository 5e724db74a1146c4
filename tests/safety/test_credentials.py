"""A password in a URI or an override is in no file and on no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CommandLine

from ftexp.cli.redaction import redact
from ftexp.config import Config

SECRET = "hunter2"
# A port of this machine that nobody listens on.
STORE = f"tracking.uri=http://me:{SECRET}@127.0.0.1:9"
SMALL = ("stage=head", "stage.epochs=1", "audit.on_leak=off")


def ftexp(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftexp", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def places(folder: Path, ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Where the password is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path.relative_to(folder)) for path in files if SECRET.encode() in path.read_bytes()]
    return found + [name for name in ("stdout", "stderr") if SECRET in getattr(ended, name)]


def test_files_are_rewritten_only_where_there_is_something_to_hide(tmp_path: Path) -> None:
    plain, secret = tmp_path / "config.yaml", tmp_path / "overrides.yaml"
    plain.write_text("uri: sqlite:///mlflow.db\n")
    secret.write_text(f"- tracking.uri=postgresql://me:{SECRET}@db/runs\n- stage=head\n")
    before = plain.stat()
    redact([plain, secret, tmp_path / "missing.yaml"])
    assert plain.stat() == before
    assert secret.read_text() == "- tracking.uri=postgresql://***@db/runs\n- stage=head\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "overrides.yaml"]


@pytest.mark.slow
def test_a_run_keeps_it_to_itself(tmp_path: Path) -> None:
    ended = ftexp(tmp_path, *SMALL, STORE)
    assert ended.returncode == 0, ended.stderr
    assert "Not tracked" in ended.stdout + ended.stderr
    assert places(tmp_path, ended) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "optimizer.head_lr=-1",
        "tracking.experiment=",
        "data=imagefolder",
        f"tracking.uri=ftp://me:{SECRET}@host",
    ],
)
def test_a_mistake_does_not_show_it(tmp_path: Path, command_line: CommandLine, wrong: str) -> None:
    ended = command_line(STORE, wrong)
    assert ended.returncode == 1
    assert places(tmp_path, ended) == []


def test_an_error_of_ours_shows_its_traceback_without_it(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: Config) -> None:
        raise RuntimeError(f"ours, with {config.tracking.uri}")

    monkeypatch.setattr("ftexp.preparation.prepare.plan", broken)
    ended = command_line(*SMALL, STORE)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "RuntimeError: ours, with http://***@127.0.0.1:9" in ended.stderr
    assert places(tmp_path, ended) == []


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["optuna", "basic"])
def test_a_sweep_keeps_it_to_itself(tmp_path: Path, sweeper: str) -> None:
    ended = ftexp(tmp_path, "-m", f"hydra/sweeper={sweeper}", *SMALL, STORE, "optimizer.head_lr=0.001,0.002")
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.glob("multirun/**/result.json"))) == 2
    assert places(tmp_path, ended) == []
