"""``resume=`` on the command line: what it stands for, what it refuses, and that it is the same run in MLflow."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from conftest import CommandLine, Compose
from resumable_runs import splits
from tiny_runs import identity_of

from ftexp.cli.resume_arguments import expand, newest_unfinished
from ftexp.data_identity import DataIdentity
from ftexp.errors import CheckpointError, ConfigError, DataError
from ftexp.run_identity import RunIdentity
from ftexp.training.step import Step


def make_run(folder: Path, *overrides: str, status: str | None = None) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    (folder / "run.json").write_text("{}")
    if status:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_stands_for_the_overrides_of_the_run_and_those_given_now_win(here: Path) -> None:
    make_run(here / "a b", "stage=head", "runtime.workers=2")
    assert expand(["resume=a b", "runtime.workers=0", "resume.force=true"]) == [
        "stage=head",
        "runtime.workers=0",
        "resume.force=true",
        "hydra.run.dir='a b'",
        "resume.run='a b'",
        "hydra.output_subdir=null",
    ]


def test_flags_keep_their_values_and_come_first(here: Path) -> None:
    make_run(here / "run", "stage=head")
    arguments = ["--config-dir", "own", "optimizer=mine", "resume=run", "-c", "job", "-c", "job", "loss=focal"]
    flags = ["--config-dir", "own", "-c", "job", "-c", "job"]
    assert expand(arguments)[:-3] == [*flags, "stage=head", "optimizer=mine", "loss=focal"]


def test_without_it_nothing_changes(here: Path) -> None:
    assert expand(["stage=head", "-m"]) == ["stage=head", "-m"]


def test_auto_is_settled_when_hydra_has_composed(here: Path) -> None:
    assert expand(["resume=auto", "stage=head"]) == ["stage=head", "resume.run=auto"]


def test_a_folder_in_quotes_is_the_folder(here: Path) -> None:
    make_run(here / "a b")
    assert "resume.run='a b'" in expand(["resume='a b'"])


def test_a_copy_without_its_overrides_goes_by_those_of_the_command(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(make_run(here / "copy", "stage=full") / ".hydra")
    assert expand(["resume=copy", "stage=head"])[0] == "stage=head"
    assert "copy does not say with which overrides the run was started" in capsys.readouterr().err


def test_a_run_of_a_config_made_in_python_is_no_run_of_a_command_without_overrides(here: Path) -> None:
    run = make_run(here / "run", status="interrupted")
    assert newest_unfinished([run], []) == run
    shutil.rmtree(run / ".hydra")
    (run / "run.json").write_text('{"overrides": null}')
    assert newest_unfinished([run], []) is None
    (run / "result.json").write_text('{"status": "finished"}')
    weights = (
        r"new run with its weights: model\.weights=run/checkpoints/best\.pt stage\.epochs=NUMBER, beside the settings"
    )
    with pytest.raises(ConfigError, match=weights):
        expand(["resume=run"])


def test_a_damaged_run_json_is_named(here: Path) -> None:
    (make_run(here / "run") / "run.json").write_text('{"overrides": [')
    with pytest.raises(CheckpointError, match=r"run/run.json is damaged"):
        expand(["resume=run"])
    (here / "run" / "run.json").write_text('{"overrides": 17}')
    with pytest.raises(CheckpointError, match=r"run/run.json is damaged: its overrides are not a list"):
        expand(["resume=run"])
    (here / "run" / "run.json").unlink()
    (here / "run" / "run.json").mkdir()
    with pytest.raises(CheckpointError, match=r"run/run.json is damaged .*Is a directory"):
        expand(["resume=run"])


def test_a_finished_run_names_the_command_for_more_epochs(here: Path) -> None:
    make_run(here / "it's", "data=imagefolder", "data.root='a b'", "stage.epochs=3", status="finished")
    with pytest.raises(ConfigError) as refused:
        expand(["resume=it's"])
    _, _, command = str(refused.value).partition("To train for more epochs, start a new run with its weights: ")
    expected = ["data=imagefolder", "data.root='a b'", "model.weights=it's/checkpoints/best.pt", "stage.epochs=NUMBER"]
    assert shlex.split(command) == ["python", "-m", "ftexp", *expected]


def test_a_command_that_has_no_runs_goes_on_with_none(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume= resumes a run of python -m ftexp. This command has no runs"):
        expand(["resume=auto"], resumable=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=nowhere"], r"resume=nowhere: there is no such folder. Give the folder of a run, or resume=auto"),
        (["resume="], r"resume= is empty. Give the folder of a run, resume=auto, or leave it out"),
        (["resume=''"], r"resume= is empty"),
        (["resume=empty"], r"resume=empty: the folder has no run.json"),
        (["resume=done"], r"resume=done: this run has finished; its result is in done/result.json"),
        (["resume=done", "-m"], r"resume= resumes one run. To resume a sweep, give its own command again"),
        (["resume=secret"], r"was given tracking.uri with a password.*Give tracking.uri=... again"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(here: Path, arguments: list[str], message: str) -> None:
    (here / "empty").mkdir()
    make_run(here / "done", status="finished")
    make_run(here / "secret", "tracking.uri=postgresql://***@host/runs")
    with pytest.raises(ConfigError, match=message):
        expand(arguments)


def test_a_password_given_again_is_taken(here: Path) -> None:
    make_run(here / "secret", "tracking.uri=postgresql://***@host/runs")
    assert "tracking.uri=postgresql://me:pw@host/runs" in expand(
        ["resume=secret", "tracking.uri=postgresql://me:pw@host/runs"]
    )


def test_other_settings_are_refused_with_the_differences(configure: Compose) -> None:
    begun = identity_of(configure("stage=head"), splits())
    begun.check_settings(configure("stage=head"), force=False)
    changed = configure("stage=head", "optimizer.head_lr=0.5", "runtime.workers=3", "train.ema=0.9")
    with pytest.raises(ConfigError) as refused:
        begun.check_settings(changed, force=True)
    message = str(refused.value)
    assert "optimizer.head_lr: auto -> 0.5" in message
    assert "train.ema: None -> 0.9" in message
    assert "runtime.workers" not in message
    assert message.endswith(
        "Start a new run for other settings, or give those on the left, as key=value, to resume this one."
    )


def test_another_file_of_class_names_is_refused_and_the_message_says_where_it_has_to_be(configure: Compose) -> None:
    shards = ("data=webdataset", "data.shards=a.tar")
    begun = identity_of(configure(*shards, "data.classes=names.txt"), splits())
    with pytest.raises(
        ConfigError, match=r"data\.classes: names\.txt -> moved\.txt\n.*on the left.*has to be where it was"
    ):
        begun.check_settings(configure(*shards, "data.classes=moved.txt"), force=True)


def test_harmless_ones_are_allowed_with_force_alone(configure: Compose) -> None:
    begun, other = identity_of(configure(), splits()), configure("runtime.workers=3", "tracking=none")
    with pytest.raises(ConfigError, match=r"(?s)runtime.workers: auto -> 3\n.*resume.force=true to resume it anyway"):
        begun.check_settings(other, force=False)
    begun.check_settings(other, force=True)


@pytest.mark.parametrize(
    "setting",
    [
        "train.batch_size=16",
        "train.accumulate=2",
        "stage.epochs=3",
        "bn_policy=train",  # leaves out a last batch of one image
        "data.sampler=balanced",
        "runtime.precision=bf16",
    ],
)
def test_what_changes_the_number_of_steps_or_the_result_is_refused_with_force_too(
    configure: Compose, setting: str
) -> None:
    begun = identity_of(configure("stage=full"), splits())
    with pytest.raises(ConfigError, match=r"The run began with other settings.*(?s:.*)Start a new run"):
        begun.check_settings(configure("stage=full", setting), force=True)


def test_other_data_is_refused_with_what_is_different(configure: Compose, tmp_path: Path) -> None:
    identity_of(configure(), splits()).write(tmp_path)
    begun = RunIdentity.read(tmp_path)
    begun.data.check(DataIdentity.of(splits()))
    for other, message in (
        (splits(shade=1), r"1 images are not those the run began with: t\. Put them back"),
        (splits(val=("v", "x")), r"1 images .*: x\."),
        (splits(classes=("a", "c")), r"classes are not those the run began with: gone: b; new: c\. Give the folders"),
        (splits(classes=("a", *map(str, range(9)))), r"gone: b; new: 0, 1, 2, 3, 4, 5, 6, 7 and 1 more\. Give"),
        (splits(classes=("b", "a")), r"they are in another order, a, b before\. Give"),
    ):
        with pytest.raises(DataError, match=message):
            begun.data.check(DataIdentity.of(other))
    moved = splits()
    moved.train.append(moved.val.pop())
    with pytest.raises(DataError, match="splits are not those"):
        begun.data.check(DataIdentity.of(moved))


def wait_for(file: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} has not appeared"
        time.sleep(0.05)


SETTINGS = ("data=imagefolder", "data.root=pictures", "data.image_size=32", "audit.on_leak=off", "stage=head")


def check_one_run(folder: Path, epochs: int) -> None:
    """In its folder and in MLflow there is one run, which has finished and has every epoch once."""
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, epochs + 1))
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_id == result["mlflow_run_id"]
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")] == list(range(1, epochs + 1))


@pytest.mark.usefixtures("pictures", "no_pictures")
def test_sigterm_then_resume_is_one_run_with_every_epoch_once(
    tmp_path: Path, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, updates = Step.update, itertools.count(1)

    def update_and_signal(step: Step) -> object:
        if next(updates) == 3:  # the second epoch, after its first save
            os.kill(os.getpid(), signal.SIGTERM)
        return update(step)

    monkeypatch.setattr(Step, "update", update_and_signal)
    stopped = command_line(*SETTINGS, "train.batch_size=8", "stage.epochs=3", "hydra.run.dir=run")
    assert stopped.returncode == 143, stopped.stderr
    assert "Resume with: python -m ftexp resume=" in stopped.stdout
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"
    ended = command_line("resume=run")
    assert ended.returncode == 0, ended.stderr
    check_one_run(tmp_path, epochs=3)


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
def test_a_process_that_gets_sigterm_is_resumed_as_one_run(tmp_path: Path, command_line: CommandLine) -> None:
    command = [sys.executable, "-m", "ftexp", *SETTINGS, "stage.epochs=20", "hydra.run.dir=run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as begun:  # type: ignore[call-overload]
        wait_for(tmp_path / "run" / "metrics.csv")
        begun.send_signal(signal.SIGTERM)
        output, _ = begun.communicate(timeout=60)
    assert begun.returncode == 143, output
    ended = command_line("resume=run")
    assert ended.returncode == 0, ended.stderr
    check_one_run(tmp_path, epochs=20)
