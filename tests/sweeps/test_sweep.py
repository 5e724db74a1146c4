"""Searches as a user starts them, through the command line."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
import yaml
from conftest import CommandLine, watch_memory
from optuna.trial import FrozenTrial, TrialState

from ftexp.sweeps.study import LOST, RETRY_OF, open_storage

Ftexp = Callable[..., subprocess.CompletedProcess[str]]

# Measured from trial 5 to trial 20: 0.2; while cycles of dead runs lay about for some trials, it was 1 to 4.
MIB_PER_TRIAL = 0.5

SMALL = (
    "data=imagefolder",
    "data.root=pictures",
    "data.image_size=32",
    "stage=head",
    "stage.epochs=2",
    "audit.on_leak=off",
    "tracking=none",
)


@pytest.fixture
def workplace(pictures: Path) -> Path:
    """The folder in which those pictures are."""
    return pictures.parent


@pytest.fixture
def sweep(workplace: Path) -> Ftexp:
    """``python -m ftexp --multirun`` on those pictures, with more arguments."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ftexp", "--multirun", *SMALL, *arguments],
            cwd=workplace,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return call


def study_folder(workplace: Path) -> Path:
    (folder,) = (path for path in (workplace / "multirun").iterdir())
    return folder


def read_summary(workplace: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((study_folder(workplace) / "sweep.json").read_text())
    return content


def read_trials(workplace: Path) -> list[dict[str, str]]:
    with (study_folder(workplace) / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def load_trials(workplace: Path, url: str | None = None) -> list[FrozenTrial]:
    folder = study_folder(workplace)
    storage = open_storage(url or f"journal:///{folder / 'study.journal'}")
    return optuna.load_study(study_name=folder.name, storage=storage).get_trials()


def test_a_search_from_the_first_trial_to_the_command_for_the_best(
    workplace: Path, command_line: CommandLine, store: str
) -> None:
    tracked = ("tracking=mlflow", f"tracking.uri={store}")
    ended = command_line("--multirun", *SMALL, "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=none", *tracked)
    assert ended.returncode == 0, ended.stderr
    summary, rows = read_summary(workplace), read_trials(workplace)
    assert summary["trials"] == {"COMPLETE": 3}
    assert summary["objectives"] == ["val_accuracy"]
    (best,) = summary["best"]
    assert best["values"]["val_accuracy"] == max(float(row["val_accuracy"]) for row in rows)
    # stage=head: a rate of the backbone would have no effect.
    assert set(best["parameters"]) == {"optimizer.head_lr", "optimizer.weight_decay"}
    # The first has the configured values; the others differ.
    assert float(rows[0]["optimizer.head_lr"]) == 1e-3
    assert len({row["optimizer.head_lr"] for row in rows}) == 3

    folder = study_folder(workplace)
    assert {"history.png", "parallel.png", "slice.png", "rates.png", "sweep.html", "0", "1", "2"} <= {
        path.name for path in folder.iterdir()
    }
    kept = {file.name for file in folder.glob("[0-9]*/checkpoints/*")}
    assert kept <= {"best.pt", "calibration.json"}, "an interrupted trial starts again: there is nothing to resume from"
    assert (folder / "best" / "checkpoints" / "best.pt").samefile(
        folder / str(best["trial"]) / "checkpoints" / "best.pt"
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("trial ")]
    assert len(lines) == 3
    assert re.search(
        r"optimizer.head_lr=0.001 .* val_accuracy \d.\d{4}  \(best \d.\d{4}, trial 0\)  \d+ s, about", lines[0]
    )

    results = [json.loads(path.read_text()) for path in folder.glob("[0-9]/result.json")]
    assert [result["test"] for result in results] == [None] * 3
    assert "test accuracy" not in ended.stdout
    assert "Launching" not in ended.stdout
    client = mlflow.MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("ftexp").experiment_id])
    assert [name for run in runs for name in run.data.metrics if name.startswith("test")] == []
    (parent,) = (run for run in runs if run.info.run_name == f"sweep {folder.name}")
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1 == 3
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best_val_accuracy"] == best["values"]["val_accuracy"]
    assert {"sweep.json", "trials.csv", "history.png", "sweep.html"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }


@pytest.mark.slow
def test_the_best_are_confirmed_with_fresh_seeds_and_the_printed_command_runs(workplace: Path, sweep: Ftexp) -> None:
    arguments = ("hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=none")
    assert sweep(*arguments).returncode == 0
    confirming = (*arguments, "sweep.confirm=2", "sweep.confirm_seeds=2")  # the same study goes on
    ended = sweep(*confirming)
    assert ended.returncode == 0, ended.stderr
    summary, folder = read_summary(workplace), study_folder(workplace)
    assert summary["trials"] == {"COMPLETE": 3}
    assert len(load_trials(workplace)) == 3  # those runs are no trials
    confirmed = summary["confirm"]
    assert [one["seeds"] for one in confirmed] == [[1, 2], [1, 2]]
    for one in confirmed:
        files = [folder / "confirm" / f"{one['trial']}-{seed}" / "result.json" for seed in (1, 2)]
        results = [json.loads(file.read_text()) for file in files]
        assert [result["best"]["val_accuracy"] for result in results] == one["values"]
        assert [result["test"] for result in results] == [None, None]
        assert one["mean"] == pytest.approx(sum(one["values"]) / 2)
    (best,) = summary["best"]
    assert best["trial"] == confirmed[0]["trial"]
    assert confirmed[0]["mean"] == max(one["mean"] for one in confirmed)
    assert os.readlink(folder / "best") == str(best["trial"])
    assert "with other seeds" in (folder / "sweep.html").read_text()

    # Killed in mid-run: what has not ended is run again, what has is not.
    kept, killed = (folder / "confirm" / f"{best['trial']}-{seed}" / "result.json" for seed in (1, 2))
    before = kept.stat().st_mtime_ns
    killed.unlink()
    assert sweep(*confirming).returncode == 0
    assert kept.stat().st_mtime_ns == before
    assert killed.exists()

    command = best["command"].replace("python ", f"{shlex.quote(sys.executable)} ")
    rerun = subprocess.run(command, shell=True, cwd=workplace, capture_output=True, text=True, timeout=300, check=False)
    assert rerun.returncode == 0, rerun.stderr
    (grid,) = (path for path in (workplace / "multirun").iterdir() if path != folder)
    assert json.loads((grid / "sweep.json").read_text())["trials"] == {"COMPLETE": 5}
    results = [json.loads(file.read_text()) for file in workplace.glob("**/result.json")]
    assert len(results) == 3 + 4 + 5 + 1  # trials, confirming runs, seeds, and the one run that may see the test split
    assert len([result for result in results if result["test"] is not None]) == 1


@pytest.mark.slow
def test_plain_lists_are_every_combination_and_the_same_command_does_not_repeat_them(
    workplace: Path, sweep: Ftexp
) -> None:
    arguments = ("optimizer.head_lr=1e-3,1e-2", "train.batch_size=-3,4", "hydra.sweeper.max_failure_rate=0.5")
    ended = sweep(*arguments)
    assert ended.returncode == 0, ended.stderr
    tried = [(row["optimizer.head_lr"], row["train.batch_size"], row["state"]) for row in read_trials(workplace)]
    assert tried == [
        ("0.001", "-3", "FAIL"),
        ("0.001", "4", "COMPLETE"),
        ("0.01", "-3", "FAIL"),
        ("0.01", "4", "COMPLETE"),
    ]
    assert "train.batch_size=-3 is not allowed" in read_trials(workplace)[0]["error"]
    again = sweep(*arguments)
    assert again.returncode == 0, again.stderr
    assert "continues after 4 ended trials" in again.stdout
    assert len(load_trials(workplace)) == 4


@pytest.mark.slow
def test_glob_stands_for_the_options_of_a_group_each_run_once(workplace: Path, sweep: Ftexp) -> None:
    ended = sweep("stage.epochs=1", "augment=glob(*,exclude=[auto,medium,strong])")
    assert ended.returncode == 0, ended.stderr
    assert [trial.params for trial in load_trials(workplace)] == [{"augment": "light"}, {"augment": "none"}]


@pytest.mark.slow
def test_all_failed_is_one_clear_message(workplace: Path, sweep: Ftexp) -> None:
    ended = sweep("data.root=gone", "hydra.sweeper.n_trials=3")
    assert ended.returncode == 1
    assert re.fullmatch(
        r"ftexp: The sweep stops: 1 of 1 trials failed .* allows 0 of 3 to fail. The last one: DataError.*\n",
        ended.stderr,
    )
    assert "No trial was completed." in ended.stdout


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("sweep.objectives=[test_accuracy]", "a search must not use the test split"),
        ("sweep.objectives=[val_acuracy]", "there is no val_acuracy. Did you mean 'val_accuracy'?"),
        ("hydra.sweeper.direction=[maximize,minimize]", "one of maximize, minimize for each of"),
        ("hydra.sweeper.pruner=medain", "must be one of hyperband, median, none"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0 is not allowed: it must be at least 1"),
        ("hydra.sweeper.storage=nosuch://x", "hydra.sweeper.storage=nosuch://x cannot be opened"),
        ("hydra/sweeper/sampler=grid", "sampler=grid needs lists"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_is_refused_before_the_first_trial(
    workplace: Path, sweep: Ftexp, argument: str, message: str
) -> None:
    ended = sweep(argument)
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(workplace.glob("multirun/*/[0-9]*"))


def test_trials_are_not_compared_by_different_metrics(workplace: Path, command_line: CommandLine) -> None:
    ended = command_line("-m", *SMALL, "train.metric=accuracy,log_loss")
    assert ended.returncode == 1
    assert ended.stderr == (
        "ftexp: train.metric is searched, and sweep.objectives=['val_${train.metric}'] would be another metric in each "
        "trial. Name the one that all trials are compared by, for example sweep.objectives=[val_accuracy].\n"
    )
    assert not (workplace / "multirun").exists()


@pytest.mark.slow
def test_two_objectives_give_the_trials_that_no_other_beats(workplace: Path, sweep: Ftexp) -> None:
    ended = sweep("sweep.objectives=[val_macro_f1,seconds]", "hydra.sweeper.n_trials=3")
    assert ended.returncode == 0, ended.stderr
    best = read_summary(workplace)["best"]
    assert best
    values = [entry["values"] for entry in best]
    assert all(set(value) == {"val_macro_f1", "seconds"} for value in values)
    for one in values:
        assert not [
            other
            for other in values
            if other["val_macro_f1"] > one["val_macro_f1"] and other["seconds"] < one["seconds"]
        ]
    assert (study_folder(workplace) / "pareto.png").exists()


@pytest.mark.slow
def test_hydras_own_grid_is_still_there(workplace: Path, sweep: Ftexp) -> None:
    ended = sweep("hydra/sweeper=basic", "optimizer.head_lr=1e-3,1e-2")
    assert ended.returncode == 0, ended.stderr
    assert len(list(workplace.glob("multirun/*/*/[01]/result.json"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "gp", "cmaes", "qmc", "nsgaii"])
def test_each_sampler_searches(workplace: Path, sweep: Ftexp, sampler: str) -> None:
    ended = sweep(f"hydra/sweeper/sampler={sampler}", "stage.epochs=1", "hydra.sweeper.n_trials=3")
    assert ended.returncode == 0, ended.stderr
    assert len(read_trials(workplace)) == 3


@pytest.mark.slow
def test_the_grid_sampler_covers_the_grid_and_ends(workplace: Path, sweep: Ftexp) -> None:
    lists = ("sweep=lr", "optimizer.head_lr=choice(1e-3,1e-2)", "optimizer.weight_decay=choice(0.1,0.2)")
    ended = sweep("hydra/sweeper/sampler=grid", "stage.epochs=1", *lists)
    assert ended.returncode == 0, ended.stderr
    rows = read_trials(workplace)
    assert len({(row["optimizer.head_lr"], row["optimizer.weight_decay"]) for row in rows}) == len(rows) == 4


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["blocks", "recipe", "models"])
def test_each_preset_searches(workplace: Path, sweep: Ftexp, preset: str) -> None:
    stage = {
        "blocks": ["stage=partial"],
        "recipe": [],
        # Those of the preset itself have to be downloaded.
        "models": ["stage=head", "model=choice(efficientnet_lite0,resnet50)", "model.weights=null"],
    }[preset]
    small = [argument for argument in SMALL if argument != "stage=head"]
    ended = subprocess.run(
        [sys.executable, "-m", "ftexp", "-m", *small, *stage, f"sweep={preset}", "hydra.sweeper.n_trials=4"],
        cwd=workplace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows = read_trials(workplace)
    assert [row["error"] for row in rows] == [""] * 4
    assert ("optimizer.block_lrs.stage7" in rows[0]) == (preset == "blocks")
    assert ("model" in rows[0]) == (preset == "models")


@pytest.mark.slow
def test_a_pruned_trial_is_no_failure_and_leaves_no_checkpoint(workplace: Path, sweep: Ftexp) -> None:
    rates = "optimizer.head_lr=tag(log, interval(1e-7, 1e-2))"
    ended = sweep(
        rates, "stage.epochs=6", "hydra.sweeper.n_trials=12", "sweep.objectives=[val_loss]", "tracking=mlflow"
    )
    assert ended.returncode == 0, ended.stderr
    pruned = [row for row in read_trials(workplace) if row["state"] == "PRUNED"]
    assert pruned
    for row in pruned:
        folder = study_folder(workplace) / row["trial"]
        assert json.loads((folder / "result.json").read_text())["status"] == "pruned"
        assert not (folder / "checkpoints").exists()
        assert int(row["epochs"]) < 6
    client = mlflow.MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    tagged = [run for run in runs if run.data.tags.get("pruned") == "true"]
    assert len(tagged) == len(pruned)
    assert {run.info.status for run in tagged} == {"FINISHED"}


def start(workplace: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ftexp", "--multirun", *SMALL, *arguments],
        cwd=workplace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_killed_in_mid_trial_the_same_command_goes_on(workplace: Path, sweep: Ftexp, storage: str | None) -> None:
    arguments = ["hydra.sweeper.n_trials=5", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0"]
    arguments += ["hydra.sweeper.pruner=none", "stage.epochs=3"]
    url = None
    if storage:
        arguments.append(f"hydra.sweeper.storage={storage}")
        url = f"sqlite:///{workplace / 'study.db'}"
    for number in (1, 3):  # the second time, trial 3 is the first one's retry or a new one
        process = start(workplace, *arguments)
        try:
            deadline = time.monotonic() + 120
            while not list(workplace.glob(f"multirun/*/{number}/splits.csv")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert TrialState.RUNNING in {trial.state for trial in load_trials(workplace, url)}
    ended = sweep(*arguments)
    assert ended.returncode == 0, ended.stderr
    trials = load_trials(workplace, url)
    lost = [trial for trial in trials if trial.user_attrs.get(LOST)]
    counted = [trial for trial in trials if trial not in lost]
    assert Counter(trial.state.name for trial in counted) == {"COMPLETE": 5}
    assert len(lost) == 2
    for trial in lost:
        (retry,) = [other for other in trials if other.user_attrs.get(RETRY_OF) == trial.number]
        assert retry.params == trial.params
    points = [tuple(trial.params.values()) for trial in counted]
    assert len(set(points)) == len(points)  # the fixed seed has not drawn a point again


@pytest.mark.slow
def test_an_edit_of_a_file_meanwhile_changes_no_trial(workplace: Path) -> None:
    option = workplace / "own" / "stage" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("defaults: [head, _self_]\nepochs: 2\n")
    small = [argument for argument in SMALL if not argument.startswith("stage")]
    arguments = ["--config-dir=own", "stage=mine", "hydra.sweeper.n_trials=3", "hydra.sweeper.pruner=none"]
    command = [sys.executable, "-m", "ftexp", "-m", *small, *arguments]
    with (workplace / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=workplace, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 120
            while not list(workplace.glob("multirun/*/0/splits.csv")):
                assert process.poll() is None, (workplace / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            option.write_text("defaults: [head, _self_]\nepochs: 5\n")
            assert process.wait(timeout=120) == 0, (workplace / "log").read_text()
        finally:
            process.kill()
    assert [row["epochs"] for row in read_trials(workplace)] == ["2"] * 3


@pytest.mark.slow
def test_ctrl_c_frees_the_trial_for_the_next_call(workplace: Path, sweep: Ftexp) -> None:
    arguments = ["hydra.sweeper.n_trials=2", "stage.epochs=3"]
    process = start(workplace, *arguments)
    try:
        deadline = time.monotonic() + 120
        while not list(workplace.glob("multirun/*/0/splits.csv")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "To resume the sweep, give the same command again." in output
    assert "resume=" not in output + errors
    assert "Traceback" not in errors
    assert [trial.state.name for trial in load_trials(workplace)] == ["WAITING", "FAIL"][::-1]
    assert sweep(*arguments).returncode == 0
    assert Counter(row["state"] for row in read_trials(workplace)) in ({"COMPLETE": 2}, {"COMPLETE": 1, "PRUNED": 1})


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_processes_that_start_at_once_share_the_trials(workplace: Path, storage: str | None) -> None:
    arguments = ["hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.pruner=none"]
    arguments += [f"hydra.sweeper.storage={storage}"] if storage else []
    processes = [start(workplace, *arguments) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    trials = load_trials(workplace, f"sqlite:///{workplace / 'study.db'}" if storage else None)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert len({tuple(trial.params.values()) for trial in trials}) == 6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_ten_times_at_random_moments_nothing_is_lost_or_double(workplace: Path, sweep: Ftexp) -> None:
    arguments = ["hydra.sweeper.n_trials=6", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.pruner=none"]
    moments = random.Random(0)
    for _ in range(10):
        process = start(workplace, *arguments)
        try:
            process.wait(timeout=moments.uniform(2, 9))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    ended = sweep(*arguments)
    assert ended.returncode == 0, ended.stderr
    trials = load_trials(workplace)
    counted = [trial for trial in trials if not trial.user_attrs.get(LOST)]
    assert len(counted) == 6
    assert all(trial.state.is_finished() for trial in trials), "none is left running or waiting"
    points = [tuple(trial.params.values()) for trial in counted]
    assert len(set(points)) == len(points)
    for trial in trials:
        if trial.user_attrs.get(LOST):
            (retry,) = [other for other in trials if other.user_attrs.get(RETRY_OF) == trial.number]
            assert retry.params == trial.params
    assert {int(row["trial"]) for row in read_trials(workplace)} == {trial.number for trial in counted}


def processes_started_by(workplace: Path) -> list[list[str]]:
    """The command lines of processes that have inherited the workplace in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or another user's
            if process.environ().get("STARTED_BY") == str(workplace):
                found.append(process.cmdline())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_launchers_run_several_trials_at_once_and_leave_no_process(
    workplace: Path, sweep: Ftexp, launcher: str
) -> None:
    package = launcher.partition("_")[0]
    pytest.importorskip(f"hydra_plugins.hydra_{package}_launcher", reason="an extra")
    arguments = ["hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", f"hydra/launcher={launcher}"]
    arguments += ["+hydra.launcher.ray.init.num_cpus=2"] if launcher == "ray" else []
    project = str(Path(__file__).resolve().parents[2])
    ended = sweep(*arguments, "hydra.sweeper.pruner=none", PYTHONPATH=project, STARTED_BY=str(workplace))
    assert ended.returncode == 0, ended.stderr
    assert Counter(row["state"] for row in read_trials(workplace)) == {"COMPLETE": 4}
    results = [json.loads(path.read_text()) for path in study_folder(workplace).glob("[0-9]/result.json")]
    assert [result["test"] for result in results] == [None] * 4
    deadline = time.monotonic() + 30  # servers of a launcher may take a while to see that the sweep has ended
    while left := processes_started_by(workplace):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.slow
def test_a_trial_that_ray_starts_again_after_it_lost_a_worker_is_whole(workplace: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="an extra")
    epochs = 80
    arguments = [f"stage.epochs={epochs}", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2"]
    arguments += ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "hydra.sweeper.pruner=none"]
    process = start(workplace, *arguments)
    try:
        deadline = time.monotonic() + 240
        while not any(map(is_training, workplace.glob("multirun/*/[0-9]"))):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lost = [worker for worker in psutil.Process(process.pid).children(recursive=True) if is_ray_job(worker)]
        for worker in lost:
            worker.kill()
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert lost
    assert process.returncode == 0, errors
    assert [trial.state.name for trial in load_trials(workplace)] == ["COMPLETE"] * 4
    for number in range(4):
        folder = study_folder(workplace) / str(number)
        with (folder / "metrics.csv").open(newline="") as file:
            assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(1, epochs + 1)), folder
        assert json.loads((folder / "result.json").read_text())["status"] == "finished"
        assert (folder / "checkpoints" / "best.pt").exists()


def is_training(folder: Path) -> bool:
    """Whether a trial has trained for an epoch and goes on."""
    history = folder / "metrics.csv"
    return history.exists() and history.read_text().count("\n") > 1 and not (folder / "result.json").exists()


def is_ray_job(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # gone meanwhile
        return any("ray::_run_job" in part for part in process.cmdline())
    return False


@pytest.mark.slow
def test_memory_does_not_grow_from_trial_to_trial(workplace: Path) -> None:
    trials, settled = 20, 5
    process = start(
        workplace,
        f"hydra.sweeper.n_trials={trials}",
        "hydra.sweeper.pruner=none",
        "stage.epochs=1",
        "tracking=mlflow",
    )
    resident = watch_memory(process, lambda: len(list(workplace.glob("multirun/*/[0-9]*/result.json"))))
    growth = (resident[trials] - resident[settled]) / (trials - settled)
    assert growth < MIB_PER_TRIAL, resident


TEST_SCORE = re.compile(r"test(?!_fraction)[\w. ]*[ =:]\s*\d*\.\d")


def entries(file: Path) -> list[str]:
    """What a file says, piece by piece: ``outer.inner=value``, ``column=value``, or its lines."""
    text = file.read_text(encoding="utf-8")
    if file.suffix in (".json", ".yaml"):
        return [f"{name}={value}" for name, value in flat(yaml.safe_load(text))]
    if file.suffix == ".csv":
        return [f"{name}={value}" for row in csv.DictReader(text.splitlines()) for name, value in row.items()]
    return re.sub('data:image/png;base64,[^"]*', "", text).splitlines()


def flat(content: object, name: str = "") -> list[tuple[str, object]]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else None
    if pairs is None:
        return [(name, content)]
    return [found for key, value in pairs for found in flat(value, f"{name}.{key}" if name else str(key))]


def scores_of_test_split(folder: Path, runs: Sequence[mlflow.entities.Run]) -> dict[str, str]:
    """Where a folder's files and tracked runs hold a score of the test split: file name or ``mlflow`` -> the piece."""
    suffixes = (".json", ".yaml", ".csv", ".html", ".log", ".journal")
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes]
    pieces = [(path.name, piece) for path in files for piece in entries(path)]
    for run in runs:
        known = {**run.data.metrics, **run.data.params, **run.data.tags}
        pieces += [("mlflow", f"{name}={value}") for name, value in known.items()]
    return {place: piece for place, piece in pieces if TEST_SCORE.search(piece)}


@pytest.mark.slow
def test_a_sweep_leaves_no_score_of_the_test_split_anywhere(workplace: Path, sweep: Ftexp) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")

    def tracked() -> list[mlflow.entities.Run]:
        return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))

    def openings() -> int:
        if not (workplace / "test_ledger.sqlite").exists():
            return 0
        with closing(sqlite3.connect(workplace / "test_ledger.sqlite")) as ledger:
            return int(ledger.execute("SELECT count(*) FROM uses").fetchone()[0])

    ended = sweep("tracking=mlflow", "hydra.sweeper.n_trials=4", "sweep.confirm=1", "sweep.confirm_seeds=2")
    assert ended.returncode == 0, ended.stderr
    of_sweep = tracked()
    assert len(of_sweep) == 1 + 4 + 2
    assert scores_of_test_split(workplace / "multirun", of_sweep) == {}
    assert not TEST_SCORE.search(ended.stdout + ended.stderr)
    results = [json.loads(path.read_text()) for path in workplace.glob("multirun/**/result.json")]
    assert {result["test"] for result in results} == {None}
    assert openings() == 0  # the split was not so much as opened

    # A run of its own with the same settings leaves them in all of these places: the search above would have seen it.
    single = [sys.executable, "-m", "ftexp", *SMALL, "tracking=mlflow"]
    subprocess.run(single, cwd=workplace, capture_output=True, timeout=120, check=True)
    (own,) = (run for run in tracked() if run.info.run_id not in {run.info.run_id for run in of_sweep})
    assert set(scores_of_test_split(workplace / "outputs", [own])) == {"result.json", "ftexp.log", "mlflow"}
    assert openings() == 1
