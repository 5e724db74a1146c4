"""A folder has one run, claimed before anything is written there; ``resume=auto`` finds it wherever it lies."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import yaml
from conftest import CommandLine, Compose
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ftexp.audit.__main__ import main as audit
from ftexp.cli.resume_arguments import own_overrides
from ftexp.config import register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import CheckpointError, ConfigError, InterruptedRunError, StoppedEarly
from ftexp.machine.torchrun import VARIABLES
from ftexp.run import run
from ftexp.run_folder import ClaimFolder, claimed, locked, refuse_trials, start_again
from ftexp.run_result import BestEpoch, RunResult
from ftexp.sweeps import trial as trial_module
from ftexp.sweeps.sweep import _refuse_other_study
from ftexp.sweeps.trial import run_trial
from ftexp.training.step import Step

SETTINGS = ["data=imagefolder", "data.root=pictures", "data.image_size=32", "tracking=none", "audit.on_leak=off"]
SETTINGS += ["stage=head", "stage.epochs=2", "train.batch_size=8"]


def make_run(folder: Path, *overrides: str, status: str | None = None, hydra: bool = True) -> Path:
    """What a run leaves, as far as it is looked at; by default as ftexp 0.1.0 left it."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}" if hydra else json.dumps({"overrides": list(overrides)}))
    if hydra:
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if status:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        yield tmp_path


def begin(*overrides: str) -> DictConfig:
    """What Hydra goes by when a run is about to begin."""
    config = compose("config", overrides=list(overrides), return_hydra_config=True)
    guard, before = ClaimFolder(), HydraConfig.instance().cfg
    try:
        guard.on_run_start(config)
    finally:
        guard.on_run_end(config)
    assert HydraConfig.instance().cfg is before
    return config


FOLDERS = [
    ("hydra.run.dir='sp ace'", "sp ace"),
    ('hydra.run.dir="sp ace"', "sp ace"),
    ("hydra.run.dir=runs/${model.name}", "runs/tf_efficientnet_lite0"),
    ("hydra.run.dir=runs/${hydra:runtime.choices.stage}", "runs/head"),
    ("hydra.run.dir=runs/${now:%Y}/x-${now:%H-%M}", "runs/1999/x-09-30"),
    ("hydra.run.dir='a[b]/${now:%H}'", "a[b]/09"),
    ("hydra.run.dir=runs/${hydra.job.override_dirname}", "runs/stage=head,train.ema=0.9"),
    ("hydra.job.name=x", "outputs/1999-12-31/09-30-00"),
]


@pytest.mark.parametrize(("place", "folder"), FOLDERS)
def test_auto_finds_the_interrupted_run_however_its_folder_is_written(here: Path, place: str, folder: str) -> None:
    make_run(here / folder, "stage=head", "train.ema=0.9", hydra=False)
    found = begin(place, "train.ema=0.9", "stage=head", "resume.run=auto")
    assert (found.resume.run, found.hydra.run.dir, found.hydra.output_subdir) == (folder, folder, None)


def test_auto_takes_the_newest_that_was_interrupted_or_killed_and_is_not_going_on(here: Path) -> None:
    wanted = ("stage=head", "train.ema=0.9")
    make_run(here / "outputs/2026-01-01/10-00-00", *wanted)
    make_run(here / "outputs/2026-01-02/10-00-00-000001", *reversed(wanted), status="interrupted")
    make_run(here / "outputs/2026-01-03/10-00-00", *wanted, status="finished")
    make_run(here / "outputs/2026-01-04/10-00-00", *wanted, status="failed")
    make_run(here / "outputs/2026-01-05/10-00-00", "stage=full", "train.ema=0.9")
    assert begin(*wanted, "resume.run=auto").resume.run == "outputs/2026-01-02/10-00-00-000001"
    with FileLock("outputs/2026-01-02/10-00-00-000001/.lock"):  # that one is still going on
        assert begin(*wanted, "resume.run=auto").resume.run == "outputs/2026-01-01/10-00-00"


def test_auto_passes_over_a_damaged_run_of_another_command_but_not_of_this_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(here / "outputs/2026-01-01/10-00-00", "stage=head")
    other = make_run(here / "outputs/2026-01-02/10-00-00", "stage=full")
    (other / "run.json").write_text("{")
    assert begin("stage=head", "resume.run=auto").resume.run == "outputs/2026-01-01/10-00-00"
    assert "resume=auto skips outputs/2026-01-02/10-00-00, a run of another command: " in capsys.readouterr().err
    same = make_run(here / "outputs/2026-01-03/10-00-00", "stage=head")
    (same / "run.json").write_text("{")
    with pytest.raises(StoppedEarly) as stopped:
        begin("stage=head", "resume.run=auto")
    assert "2026-01-03/10-00-00/run.json is damaged" in str(stopped.value.__cause__)


def test_auto_begins_a_new_run_where_there_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = begin("stage=head", "hydra.run.dir=run", "resume.run=auto")
    assert (config.resume.run, config.hydra.run.dir, config.hydra.output_subdir) == (None, "run", ".hydra")
    assert "no unfinished run of this command, so a new one begins" in capsys.readouterr().err
    assert begin("resume.run=auto").hydra.run.dir.startswith(f"outputs/{time.strftime('%Y')}-")


def test_all_processes_of_torchrun_go_on_with_the_run_that_the_first_one_found(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, bytes] = {}

    class Store:
        def set(self, key: str, value: str) -> None:
            said[key] = value.encode()

        def get(self, key: str) -> bytes:
            return said[key]

    monkeypatch.setattr("ftexp.run_folder.store", Store)
    make_run(here / "run", "stage=head")
    for rank in (0, 1):
        values = {**dict.fromkeys(VARIABLES, "127.0.0.1"), "WORLD_SIZE": "2", "RANK": str(rank)}
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        place = "run" if rank == 0 else "."
        config = begin("stage=head", f"hydra.run.dir={place}", "resume.run=auto")
        assert (config.resume.run, config.hydra.run.dir) == ("run", place)


@pytest.mark.parametrize(
    ("status", "auto", "message"),
    [
        (None, False, r"run holds a run that was interrupted. Resume it \(python -m ftexp resume=run\), set another"),
        ("failed", True, r"run holds a run that ended as failed. Resume it"),
        ("finished", True, r"run holds a finished run. Set another hydra.run.dir, or remove the folder"),
    ],
)
def test_no_run_begins_in_the_folder_of_another(here: Path, status: str | None, auto: bool, message: str) -> None:
    make_run(here / "run", "stage=head", status=status)
    with pytest.raises(StoppedEarly) as stopped:
        begin("stage=head", "hydra.run.dir=run", *(["resume.run=auto"] if auto else []))
    assert isinstance(stopped.value.__cause__, CheckpointError)
    with pytest.raises(CheckpointError, match=message):
        raise stopped.value.__cause__


@pytest.mark.parametrize("left", ["run.json", "result.json", "checkpoints/best.pt", "checkpoints/last.pt"])
def test_any_file_of_a_run_says_that_there_is_one(tmp_path: Path, left: str) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).write_text("{}")
    with pytest.raises(CheckpointError, match="holds a run"), claimed(tmp_path, new=True):
        pass
    with claimed(tmp_path, new=False):
        pass


def test_what_a_refused_audit_or_setting_left_keeps_nobody_out(tmp_path: Path) -> None:
    for name in (".hydra/config.yaml", "ftexp.log", "splits.csv", "leaks.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with claimed(tmp_path, new=True):
        pass


def test_the_folder_is_this_threads_alone_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"

    def elsewhere() -> None:
        with locked(folder.parent / ".." / "new" / "run"):
            pass

    with locked(folder), ThreadPoolExecutor(1) as other:
        with locked(folder.parent / ".." / "new" / "run"):  # again, by another way
            pass
        with pytest.raises(CheckpointError, match="Another run is using"):
            other.submit(elsewhere).result()
    elsewhere()


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = r"The folder of the run, .*file/run, cannot be written to: Not a directory"
    with pytest.raises(ConfigError, match=message), locked(tmp_path / "file" / "run"):
        pass


def test_default_names_differ_within_a_second_and_sort_by_time(here: Path) -> None:
    names = [begin().hydra.run.dir for _ in range(3)]
    assert len(set(names)) == 3
    assert names == sorted(names)
    config = compose("config", overrides=["hydra/sweeper=basic"], return_hydra_config=True)
    assert len(Path(config.hydra.sweep.dir).name) == len("09-30-00-123456")


def test_a_grid_of_hydras_own_replaces_no_runs_of_another(here: Path) -> None:
    def begin_grid(*overrides: str) -> None:
        config = compose("config", overrides=["hydra/sweeper=basic", *overrides], return_hydra_config=True)
        ClaimFolder().on_multirun_start(config)

    begin_grid("hydra.sweep.dir=grid")
    make_run(here / "grid" / "0")
    with pytest.raises(StoppedEarly):
        begin_grid("hydra.sweep.dir=grid")
    begin_grid("hydra.sweep.dir=grid", "hydra.sweep.subdir=${hydra.job.override_dirname}")  # other jobs, other folders
    with pytest.raises(StoppedEarly):
        begin_grid("hydra.sweep.dir=elsewhere", "resume.run=auto")


def test_trials_of_two_studies_do_not_share_a_folder(tmp_path: Path) -> None:
    _refuse_other_study(tmp_path, "a")
    (tmp_path / "sweep.json").write_text('{"study": "a"}')
    _refuse_other_study(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"is the folder of the study a, and this search is the study b.*sweep.dir"):
        _refuse_other_study(tmp_path, "b")
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "sweep.json").write_text(damaged)
        with pytest.raises(ConfigError, match=r"sweep.json is damaged .*Remove it: the same command writes it anew"):
            _refuse_other_study(tmp_path, "a")
    refuse_trials(tmp_path)
    make_run(tmp_path / "0")
    with pytest.raises(ConfigError, match=r"holds the runs of another sweep, for example .*/0, which would be"):
        refuse_trials(tmp_path)


def leftovers(folder: Path, status: str | None) -> Path:
    make_run(folder, status=status)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best.pt").write_bytes(b"of the process that was killed")
    (folder / "metrics.csv").write_text("phase,epoch\nhead,1\n")
    (folder / "ftexp.log").touch()
    return folder


def test_a_job_that_is_started_again_finds_nothing_of_the_process_that_was_lost(tmp_path: Path) -> None:
    start_again(leftovers(tmp_path / "killed", None), finished=False)
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {".hydra", "ftexp.log"}
    finished = leftovers(tmp_path / "finished", "finished")
    start_again(finished, finished=False)
    assert (finished / "checkpoints" / "best.pt").exists()
    start_again(finished, finished=True)
    assert not (finished / "checkpoints").exists()


@pytest.mark.parametrize("status", [None, "interrupted", "finished"])
def test_a_trial_whose_process_was_lost_is_run_again_in_its_folder(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str | None
) -> None:
    folder, running, gone = leftovers(tmp_path / "study" / "0", status), Event(), Event()

    def train(*_: object, **__: object) -> RunResult:
        with claimed(folder, new=True):  # as a run does
            reached = BestEpoch(1, {"accuracy": 0.5})
            return RunResult(folder, "accuracy", 0.5, reached, None, {"head": "kept"}, None, 1.0, 1.0, 1.0)

    def dying() -> None:  # a worker of that process, which holds the lock for a moment longer
        with FileLock(folder / ".lock"):
            running.set()
            gone.wait(10)

    monkeypatch.setattr(trial_module, "run", train)
    monkeypatch.setattr(trial_module.gc, "collect", gone.set)
    with ThreadPoolExecutor(1) as other:
        other.submit(dying)
        running.wait(10)
        config = configure("runtime.device=cpu", "sweep.objectives=[val_accuracy]")
        monkeypatch.setattr(trial_module, "_observers", lambda *_: [])
        address = trial_module.TrialAddress("", "s", 0, "none")
        assert run_trial(config, folder, address, num_jobs=1) == [0.5]


def test_a_run_itself_refuses_a_second_one(configure: Compose, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run that was interrupted"):
        run(configure("runtime.device=cpu"), tmp_path / "run")


def test_what_is_kept_of_the_overrides_has_no_place_and_no_password() -> None:
    given = ["stage=head", "resume.run=auto", "hydra.job.chdir=true", "hydra/launcher=joblib", "+a=1"]
    assert own_overrides([*given, "tracking.uri=mysql://me:pw@host/x"]) == [
        "stage=head",
        "+a=1",
        "tracking.uri=mysql://***@host/x",
    ]


@pytest.fixture
def interrupted(command_line: CommandLine, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A run that is stopped like one that got SIGTERM, in its second epoch."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        left, update = iter(range(3)), Step.update

        def stopped(step: Step) -> object:
            if next(left, None) is None:
                raise InterruptedRunError(15)
            return update(step)

        with monkeypatch.context() as patch:
            patch.setattr(Step, "update", stopped)
            ended = command_line(*SETTINGS, *arguments)
        assert ended.returncode == 143, ended.stderr
        return ended

    return call


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def status(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["status"])


@pytest.mark.usefixtures("no_pictures")
def test_a_second_command_leaves_a_run_as_it_is_and_the_printed_one_goes_on(
    interrupted: CommandLine, command_line: CommandLine, tmp_path: Path
) -> None:
    first = interrupted('hydra.run.dir="sp ace"')
    folder = tmp_path / "sp ace"
    hint = next(line for line in first.stdout.splitlines() if "Resume with: " in line)
    before = files(folder)
    for other in (
        command_line(*SETTINGS, "stage.epochs=1", "hydra.run.dir=sp ace"),
        command_line(*SETTINGS, "hydra.run.dir=sp ace", entry=audit),
        command_line(*SETTINGS, "resume=sp ace", entry=audit),
    ):
        assert other.returncode == 1
        assert "Traceback" not in other.stderr
        assert files(folder) == before
    _, _, _, *arguments = shlex.split(hint.partition("Resume with: ")[2])
    ended = command_line(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert status(folder) == "finished"


@pytest.mark.slow
@pytest.mark.usefixtures("pictures", "no_pictures")
def test_the_command_that_is_printed_for_more_epochs_begins_a_longer_run(
    command_line: CommandLine, tmp_path: Path
) -> None:
    assert command_line(*SETTINGS, "stage.epochs=1", "hydra.run.dir=sp ace").returncode == 0
    again = command_line("resume=sp ace")
    assert again.returncode == 1
    command = again.stderr.partition("start a new run with its weights: ")[2].replace("NUMBER", "1")
    longer = command_line(*shlex.split(command)[3:], "hydra.run.dir=longer")
    assert longer.returncode == 0, longer.stderr
    assert status(tmp_path / "longer") == "finished"


@pytest.mark.usefixtures("no_pictures")
def test_chdir_scatters_nothing_over_the_runs(command_line: CommandLine, pictures: Path) -> None:
    settings = [text for text in SETTINGS if text != "audit.on_leak=off"]
    look = ("audit.on_leak=warn", "audit.features=false")
    ended = command_line(*settings, *look, "hydra.run.dir=run", "hydra.job.chdir=true")
    assert ended.returncode == 0, ended.stderr
    here = pictures.parent
    for path in (".ftexp/cache", ".ftexp/fingerprints.sqlite", "test_ledger.sqlite"):
        assert (here / path).exists(), path
    strays = [path.name for path in (here / "run").rglob("*") if path.suffix in (".db", ".sqlite", ".safetensors")]
    assert strays == []
    assert Path.cwd() == here


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_copy_without_hidden_files_goes_on_and_checkpoints_of_another_run_are_refused(
    interrupted: CommandLine, command_line: CommandLine, tmp_path: Path
) -> None:
    interrupted("hydra.run.dir=first")
    interrupted("hydra.run.dir=second")
    subprocess.run("mkdir copy; cp -r first/* copy; cp second/checkpoints/* first/checkpoints", shell=True, check=True)
    mixed = command_line("resume=first")
    assert mixed.returncode == 1
    assert "were not written by the run of the run.json beside them" in mixed.stderr
    ended = command_line("resume=copy")
    assert ended.returncode == 0, ended.stderr
    assert status(tmp_path / "copy") == "finished"


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ftexp", *SETTINGS, "stage.epochs=40", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, text=True, **pipes)  # type: ignore[call-overload]


def epochs(folder: Path) -> int:
    file = folder / "metrics.csv"
    return len(list(csv.DictReader(file.read_text().splitlines()))) if file.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "folder"), [('hydra.run.dir="sp ace"', "sp ace"), FOLDERS[2], ("train.ema=null", "")]
)
def test_a_killed_process_is_gone_on_with_in_its_folder(
    pictures: Path, command_line: CommandLine, place: str, folder: str
) -> None:
    with started(pictures.parent, place) as killed:
        end = time.monotonic() + 120
        while not (found := list(pictures.parent.rglob("metrics.csv"))) or epochs(found[0].parent) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    (file,) = found
    assert str(file.parent.relative_to(pictures.parent)) == folder or not folder
    with started(pictures.parent, place, "resume=auto") as again:
        _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert list(pictures.parent.rglob("metrics.csv")) == [file]
    assert epochs(file.parent) == 40
    with started(pictures.parent, place, f"hydra.run.dir='{file.parent}'", "resume=auto") as third:
        _, errors = third.communicate(timeout=240)
    assert third.returncode == 1
    assert "holds a finished run" in errors


@pytest.mark.slow
def test_of_commands_that_start_at_once_each_has_its_folder_or_one_has_it(pictures: Path) -> None:
    here = pictures.parent
    runs = [
        started(here, "stage.epochs=1", *place)
        for place in ((), (), (), ("hydra.run.dir=one",)) + (("hydra.run.dir=one",),) * 2
    ]
    ended = [(run.communicate(timeout=240)[1], run.returncode) for run in runs]
    assert [code for _, code in ended[:3]] == [0, 0, 0]
    assert sorted(code for _, code in ended[3:]) == [0, 1, 1]
    assert all("Another run is using one" in errors for errors, code in ended[3:] if code)
    assert len(list(here.glob("outputs/*/*/result.json"))) == 3
    assert status(here / "one") == "finished"


@pytest.mark.slow
def test_with_chdir_a_process_keeps_store_ledger_and_caches_where_it_was_started(pictures: Path) -> None:
    settings = [setting for setting in SETTINGS if not setting.startswith(("tracking", "audit"))]
    command = [
        sys.executable,
        "-m",
        "ftexp",
        *settings,
        "audit.on_leak=warn",
        "hydra.run.dir=run",
        "hydra.job.chdir=true",
    ]
    here = pictures.parent
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    kept = {"mlflow.db", "test_ledger.sqlite", ".ftexp"}
    assert kept <= {path.name for path in here.iterdir()}
    assert not [path for path in (here / "run").rglob("*") if path.name in kept]
