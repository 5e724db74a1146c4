"""Real processes, started by torchrun, with a process group over gloo on this machine."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import CommandLine
from PIL import Image
from torch.distributed import HashStore

from ftexp.training.checkpoints.checkpoint import load_checkpoint

PROJECT = Path(__file__).resolve().parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
LIMIT_SECONDS = 240


def settings(folder: Path, *overrides: str) -> list[str]:
    steps = [] if "head.solver=solved" in overrides else ["optimizer=sgd"]
    small = ["runtime.device=cpu", "data.image_size=32", *steps, "audit.on_leak=off", *overrides]
    return [*small, f"runtime.cache_folder={folder.parent / 'cache'}", f"hydra.run.dir={folder}"]


def command(folder: Path, *overrides: str, torchrun: bool) -> list[str]:
    return [sys.executable, *(TORCHRUN if torchrun else []), "-m", "ftexp", *settings(folder, *overrides)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}


def train(folder: Path, *overrides: str, torchrun: bool) -> subprocess.CompletedProcess[str]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        command(folder, *overrides, torchrun=torchrun),
        cwd=folder.parent,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def curve(folder: Path) -> list[tuple[float, ...]]:
    with (folder / "metrics.csv").open(newline="") as file:
        names = ("train_loss", "val_loss", "grad_norm", "val_accuracy", "val_macro_f1")
        return [tuple(float(row[name]) for name in names) for row in csv.DictReader(file)]


def assert_same_curve(one: Path, two: Path, rel: float = 2e-4) -> None:
    # float32 sums in another order differ by 1e-7 a step, and training all blocks makes more of it at every step: after
    # 30 of them losses differ by 2e-3, as much as between channels_last and not in one process. So few steps here.
    assert len(curve(one)) == len(curve(two)) > 0
    for alone, together in zip(curve(one), curve(two), strict=True):
        assert together[:2] == pytest.approx(alone[:2], rel=rel)
        assert together[2] == pytest.approx(alone[2], rel=5e-3), "the gradient's norm"
        assert together[3:] == pytest.approx(alone[3:], abs=0.006), "two of 362 validation images"


def test_head_has_the_curve_of_one_process_and_leaves_one_run(
    tmp_path: Path, command_line: CommandLine, store: str
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    together = train(two, "stage=head", "stage.epochs=2", f"tracking.uri={store}", torchrun=True)
    assert together.returncode == 0, together.stderr
    alone = command_line(*settings(one, "stage=head", "stage.epochs=2", "tracking=none"))
    assert alone.returncode == 0, alone.stderr
    assert "the activations before head were computed once" in together.stdout
    assert "the activations before head of these images were cached" in alone.stdout, "one cache serves both"
    assert_same_curve(one, two)
    assert "on 2 x cpu" in together.stdout
    assert together.stdout.count("epoch  1/2") == 1, "one process speaks"
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert json.loads((two / "result.json").read_text())["test"]["uses"] == 1, "once for both processes"
    with sqlite3.connect(tmp_path / "mlflow.db") as opened:
        runs = opened.execute("SELECT status, value FROM runs JOIN tags USING (run_uuid) WHERE key = 'processes'")
        assert runs.fetchall() == [("FINISHED", "2")]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_once(tmp_path: Path) -> None:
    refused = train(tmp_path / "run", "train.batch_size=33", "tracking=none", torchrun=True)
    assert refused.returncode == 1
    assert refused.stderr.count("ftexp: train.batch_size=33 is the batch size of all 2 processes together") == 1
    assert "Use a multiple of 2: 32 or 34." in refused.stderr


def test_a_sweep_is_refused_once_with_the_way_to_do_it(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes one after the other, here, with the store that torchrun's would share."""
    shared = HashStore()
    monkeypatch.setattr("ftexp.machine.torchrun.store", lambda: shared)
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    refused = command_line("--multirun")
    assert refused.returncode == 1
    assert refused.stderr.count("ftexp: torchrun trains one run with several processes") == 1
    assert "hydra/launcher=joblib" in refused.stderr
    monkeypatch.setenv("RANK", "0")
    again = command_line("--multirun")
    assert (again.returncode, again.stderr) == (1, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("stage=partial", "stage.epochs=2"),
        ("stage=partial", "stage.epochs=2", "runtime.cache=off", "augment=light", "train.ema=0.9"),
        ("stage=full", "stage.epochs=2", "train.batch_size=256"),
        ("stage=full", "stage.epochs=1", "train.batch_size=28", "train.accumulate=3"),
        ("stage=full", "stage.epochs=2", "train.batch_size=256", "runtime.fold_batchnorm=true"),
        ("stage=staged", "stage.epochs=2", "train.batch_size=256"),
    ],
    ids=["partial", "partial-augmented", "full", "full-accumulated", "folded", "staged"],
)
def test_the_curve_is_that_of_one_process(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, torchrun in ((one, False), (two, True)):
        ended = train(folder, *overrides, "tracking=none", "model.drop_rate=0", torchrun=torchrun)
        assert ended.returncode == 0, ended.stderr
    assert_same_curve(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "num_features"),
    [
        (("stage=head", "head.solver=solved"), "1,776"),
        (("stage=partial", "stage.epochs=1", "head.init=solved", "model.drop_rate=0", "head.depth=last"), "1,280"),
    ],
    ids=["solver", "init"],
)
def test_a_solved_head_is_that_of_one_process(tmp_path: Path, overrides: tuple[str, ...], num_features: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, torchrun in ((one, False), (two, True)):
        ended = train(folder, *overrides, "tracking=none", torchrun=torchrun)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count(f"solved  the head on {num_features} features") == 1, ended.stdout
    alone, together = (json.loads((folder / "solution.json").read_text()) for folder in (one, two))
    assert together["num_images"] == alone["num_images"]
    assert together["strength"] == alone["strength"]
    assert together["objective"] == pytest.approx(alone["objective"], abs=1e-6)
    for row, other in zip(curve(one), curve(two), strict=True):
        assert other[:2] == pytest.approx(row[:2], rel=1e-3)  # an epoch of AdamW enlarges rounding
    weights = [load_checkpoint(folder / "checkpoints" / "best.pt")["model"] for folder in (one, two)]
    names = [name for name in weights[0] if name.startswith("classifier.")]
    assert len(names) >= 2
    for name in names:
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("stage=head",),
        ("stage=head", "runtime.compile=true"),
        ("stage=full", "train.accumulate=2"),
        ("stage=full", "augment=light", "augment.mixup=0.2", "runtime.pixels=off"),
    ],
    ids=["kept-activations", "compiled", "full", "mixed"],
)
def test_a_last_batch_with_fewer_images_than_processes_counts(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    """17 images to train on and 17 to validate on, in batches of 16: the second process has nothing of the last one."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (9, 8)), ("val", (8, 9)), ("test", (2, 2))):
        for label, (count, brightness) in zip("ab", zip(counts, (0, 90), strict=True), strict=True):
            (tmp_path / "pictures" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(brightness, brightness + 160, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / label / f"{number}.png")
    data = ("data=imagefolder", f"data.root={tmp_path / 'pictures'}", "data.image_size=32", "train.batch_size=16")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, torchrun in ((one, False), (two, True)):
        same = ("stage.epochs=2", "tracking=none", "model.drop_rate=0")
        ended = train(folder, *data, *same, *overrides, torchrun=torchrun)
        assert ended.returncode == 0, ended.stderr
        assert "train 17, val 17, test 4" in ended.stdout
        assert "continuing in eager mode" not in ended.stdout + ended.stderr
    if "augment.mixup=0.2" in overrides:  # each process mixes its own images with one another
        assert [len(row) for row in curve(two)] == [len(row) for row in curve(one)]
    else:
        assert_same_curve(one, two)


def wait_for_epochs(folder: Path, number: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if (folder / "metrics.csv").exists() and len(curve(folder)) >= number:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {number} epochs in {LIMIT_SECONDS} s")


def ranks(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes that a torchrun has started, by their ranks."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {child.environ()["RANK"]: child for child in children if "RANK" in child.environ()}


LONG = ("stage=full", "stage.epochs=4", "tracking=none", "train.batch_size=256")


@pytest.mark.slow
@pytest.mark.parametrize("end", ["rank 1 dies", "rank 0 dies", "Ctrl-C"])
def test_what_was_saved_goes_on_with_one_process_or_two(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder, *LONG, torchrun=True),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_epochs(folder, 2, process)  # last.pt is at most one epoch behind
        if end == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            ranks(process)[end.split()[1]].kill()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("ftexp: ")]
    assert len(said) == 1, errors
    assert ("interrupted." if end == "Ctrl-C" else "One of the 2 processes has died") in said[0]
    done = load_checkpoint(folder / "checkpoints" / "last.pt")["epoch"]
    assert 1 <= done < 4

    other = end == "rank 1 dies"  # with another number of processes; the rest with the same
    resumed = train(folder, *LONG, f"resume={folder}", torchrun=not other)
    assert resumed.returncode == 0, resumed.stderr
    reference = train(tmp_path / "reference", *LONG, torchrun=False)
    assert reference.returncode == 0, reference.stderr
    assert_same_curve(tmp_path / "reference", folder, rel=2e-3)  # after 20 steps of the whole network


MACHINES = ("one machine", "another")


def start_machines(folder: Path, *overrides: str, last: Sequence[str] = ()) -> list[subprocess.Popen[str]]:
    """Two machines with a process each: two torchruns, each in a folder of its own; ``last`` are more overrides."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1"]
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meeting, "-m", "ftexp"]
    started = []
    for name in MACHINES:
        (folder / name).mkdir(parents=True)
        started.append(
            subprocess.Popen(
                [sys.executable, *torchrun, *settings(folder / "run", *overrides), *last],
                cwd=folder / name,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """What each has written to its streams, when all have ended."""
    try:
        return [process.communicate(timeout=LIMIT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [True, False], ids=["one folder", "a folder each"])
def test_two_machines_have_the_curve_of_one_process_and_leave_one_run(tmp_path: Path, shares: bool) -> None:
    """The cache is in the folder of both, or in that from which each torchrun is started."""
    overrides = ("stage=head", "stage.epochs=2", "tracking=none")
    machines = start_machines(tmp_path, *overrides, last=() if shares else ["runtime.cache_folder=own"])
    streams = ended(machines)
    assert [machine.returncode for machine in machines] == [0, 0], streams
    spoken = [output for output, _ in streams if output]
    assert len(spoken) == 1, "one process speaks"
    assert "on 2 x cpu" in spoken[0]
    assert "the activations before head were computed once" in spoken[0]
    said = spoken[0].count("the machines of this run do not share runtime.cache_folder=")
    assert said == (0 if shares else 1), spoken[0]

    alone = train(tmp_path / "alone", *overrides, torchrun=False)
    assert alone.returncode == 0, alone.stderr
    assert_same_curve(tmp_path / "alone", tmp_path / "run")
    left, expected = ({path.name for path in (tmp_path / name).iterdir()} for name in ("run", "alone"))
    assert left == expected
    assert len([name for name in MACHINES if (tmp_path / name / "test_ledger.sqlite").exists()]) == 1
    kept = [{file.name for file in (tmp_path / name).rglob("*.safetensors")} for name in MACHINES]
    if shares:
        assert kept == [set(), set()]
        assert "of these images were cached" in alone.stdout, "under the names of one process"
    else:
        assert kept[0] == kept[1] == {file.name for file in (tmp_path / "cache").glob("*.safetensors")} != set()


@pytest.mark.slow
def test_a_machine_that_is_lost_ends_the_run_on_the_other(tmp_path: Path) -> None:
    machines = start_machines(tmp_path, *LONG)
    try:
        wait_for_epochs(tmp_path / "run", 1, machines[0])
        lost, other = sorted(machines, key=lambda machine: "1" not in ranks(machine))
        processes = [psutil.Process(lost.pid), *psutil.Process(lost.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        _, errors = other.communicate(timeout=60)
    finally:
        for machine in machines:
            machine.kill()
    assert other.returncode != 0
    said = [line for line in errors.splitlines() if line.startswith("ftexp: ")]
    assert len(said) == 1, errors
    assert "One of the 2 processes has died" in said[0]
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["epoch"] >= 1
