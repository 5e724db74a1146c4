"""Files and folders that cannot be used: one message with the file, the reason and the setting that moves it."""

from __future__ import annotations

import errno
import json
import os
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import CommandLine, Compose

from ftexp.errors import DataError, DivergedError
from ftexp.files.disk import explain_disk, written_paths

Usage = namedtuple("Usage", "total used free")


def of_system(number: int, file: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([str(file)] if file else []))


def test_the_setting_is_that_of_the_innermost_place(configure: Compose, tmp_path: Path) -> None:
    store = f"tracking.uri=sqlite:///{tmp_path}/store/mlflow.db"
    cache = f"runtime.cache_folder={tmp_path}/run/cache"
    paths = written_paths(configure(store, cache), tmp_path / "run", in_sweep=False)
    for file, setting in (
        ("run/metrics.csv", "hydra.run.dir"),
        ("run", "hydra.run.dir"),
        ("run/cache/a.tmp", "runtime.cache_folder"),
        ("store/mlflow.db", "tracking.uri"),
    ):
        message = explain_disk(of_system(errno.EROFS, tmp_path / file), paths)
        advice = f"Set another location with {setting}."
        assert message == f"{tmp_path / file} cannot be used: Read-only file system. {advice}"
    message = explain_disk(of_system(errno.EACCES, Path("/elsewhere")), paths)
    assert message == "/elsewhere cannot be used: Permission denied."
    assert "hydra.sweep.dir" in written_paths(configure(store), tmp_path, in_sweep=True)


def test_of_a_full_disk_the_full_paths_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"hydra.run.dir": tmp_path / "full" / "run", "runtime.cache_folder": tmp_path / "cache"}
    (tmp_path / "full").mkdir()
    free = {tmp_path / "full": 1000, tmp_path: 2**30}
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(0, 0, free[folder]))
    message = explain_disk(of_system(errno.ENOSPC), paths)
    assert message == (
        "A file cannot be written: No space left on device. Free some space, or set another location: "
        f"hydra.run.dir={tmp_path}/full/run (0 MiB free)."
    )
    named = explain_disk(of_system(errno.ENOSPC, tmp_path / "full" / "run" / "result.json"), paths)
    assert named == str(message).replace("A file", f"{tmp_path}/full/run/result.json")
    free[tmp_path / "full"] = 2**30  # a quota, of which the system does not tell
    message = explain_disk(of_system(errno.EDQUOT), paths)
    assert f"runtime.cache_folder={tmp_path}/cache (1024 MiB free)." in str(message)
    (tmp_path / "full" / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "full" / "run" / "checkpoints" / "last.pt").touch()
    free[tmp_path / "full" / "run"] = 0
    assert str(explain_disk(of_system(errno.ENOSPC), paths)).endswith("Then resume with resume=FOLDER OF THE RUN.")


def test_the_cause_counts_and_other_errors_are_left_alone() -> None:
    wrapped = ValueError("Unable to configure handler 'file'")
    wrapped.__cause__ = of_system(errno.EISDIR, Path("/run/ftexp.log"))
    assert "/run/ftexp.log cannot be used: Is a directory." in str(explain_disk(wrapped, {}))
    said = DataError("said already")
    said.__cause__ = of_system(errno.ENOSPC)
    for error in (said, DivergedError("nan"), ConnectionRefusedError(errno.ECONNREFUSED, "refused"), KeyError("x")):
        assert explain_disk(error, {}) is None


SETTINGS = ["data=imagefolder", "data.root=pictures", "data.image_size=32", "stage=head", "stage.epochs=1"]


@pytest.mark.usefixtures("pictures", "no_pictures")
def test_a_run_continues_without_its_caches(tmp_path: Path, command_line: CommandLine) -> None:
    (tmp_path / "file").touch()
    caches = ["runtime.cache_folder=file", "audit.cache=file/x.sqlite", "audit.features=false", "audit.on_leak=warn"]
    ended = command_line(*SETTINGS, *caches, "tracking=none", "hydra.run.dir=run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" cannot be used (") == 2
    assert ended.stdout.count("audit   audit.cache=file/x.sqlite cannot be used (") == 1
    assert ended.stdout.count(f"cache   off: {tmp_path}/file cannot be used (") == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "finished"


@pytest.mark.usefixtures("pictures", "no_pictures")
@pytest.mark.parametrize(
    ("in_the_way", "shown"),
    [
        (
            "run",
            "The folder of the run, run, cannot be written to: File exists. Set another one with hydra.run.dir=FOLDER",
        ),
        ("run/ftexp.log/", "run/ftexp.log cannot be used: Is a directory. Set another location with hydra.run.dir."),
        ("run/.hydra", "run/.hydra cannot be used: File exists. Set another location with hydra.run.dir."),
        ("run/splits.csv/", "run/splits.csv cannot be used: Is a directory. Set another location with hydra.run.dir."),
        ("run/checkpoints", "run/checkpoints cannot be used: File exists. Set another location with hydra.run.dir."),
        ("test_ledger.sqlite/", "test_ledger.sqlite, which counts how often each test set is used, cannot be used"),
    ],
)
def test_an_unusable_file_that_a_run_needs_is_one_message(
    tmp_path: Path, command_line: CommandLine, in_the_way: str, shown: str
) -> None:
    path = tmp_path / in_the_way
    if in_the_way.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    ended = command_line(*SETTINGS, "tracking=none", "audit.on_leak=off", "hydra.run.dir=run")
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: ")
    assert shown in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("pictures", "no_pictures")
def test_a_full_disk_ends_a_run_with_one_message(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise of_system(errno.ENOSPC)

    monkeypatch.setattr("ftexp.report.recorder.write_rows", full)
    monkeypatch.setattr("ftexp.report.result.write_json", full)  # result.json, which would say why, does not fit too
    ended = command_line(*SETTINGS, "tracking=none", "audit.on_leak=off", "hydra.run.dir=run")
    assert ended.returncode == 1
    assert ended.stderr.startswith("ftexp: A file cannot be written: No space left on device. Free some space, or set")
    assert f"hydra.run.dir={tmp_path}/run (" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "result.json cannot be written: [Errno 28]" in ended.stdout
