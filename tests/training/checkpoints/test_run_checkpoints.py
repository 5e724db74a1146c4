"""What is saved, in which order, and how far it may be behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import Compose
from tiny_runs import SMALL, colours, fit, fresh_network, resumed

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import CheckpointError, InterruptedRunError, WeightsError
from ftexp.inference.load import load_checkpoint_file
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.models.weights_file import read_weights
from ftexp.training.checkpoints import run_checkpoints
from ftexp.training.checkpoints.checkpoint import load_checkpoint
from ftexp.training.checkpoints.run_checkpoints import RunCheckpoints

pytestmark = pytest.mark.usefixtures("no_pictures")

SPLITS = Splits(colours(24, 0), colours(12, 1), TestSplit([]), tuple("rgbx"))


def written(monkeypatch: pytest.MonkeyPatch, *, failing: Sequence[str] = ()) -> list[str]:
    """The names of the checkpoints in the order in which they were written, until one of them fails."""
    names: list[str] = []
    for function, of in (("write_last", lambda path: "last.pt"), ("write_checkpoint", lambda path: path.name)):
        original = getattr(run_checkpoints, function)

        def write(path: Path, content: object, original=original, of=of) -> None:  # type: ignore[no-untyped-def]
            if of(path) in failing:
                raise CheckpointError(f"{of(path)}: the disk is full")
            original(path, content)
            names.append(of(path))

        monkeypatch.setattr(run_checkpoints, function, write)
    return names


def test_last_pt_is_written_before_the_best_weights_of_the_same_epoch(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = written(monkeypatch)
    fit(configure(*SMALL, "stage=head"), SPLITS, tmp_path)
    assert names[:2] == ["last.pt", "best.pt"]
    assert names.count("last.pt") == 3


def test_best_pt_is_not_written_where_last_pt_could_not_be_and_the_run_ends(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = written(monkeypatch, failing=["last.pt"])
    with pytest.raises(CheckpointError, match=r"last\.pt: the disk is full"):
        fit(configure(*SMALL, "stage=head"), SPLITS, tmp_path)
    assert names == []


@pytest.mark.parametrize("epochs", [1, 2])
def test_an_error_of_the_last_save_is_an_error_of_the_run(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    written(monkeypatch, failing=["best.pt"])
    with pytest.raises(CheckpointError, match=r"best\.pt: the disk is full"):
        fit(configure(*SMALL, "stage=head", f"stage.epochs={epochs}"), SPLITS, tmp_path)


def test_a_save_waits_for_the_one_before_it(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing takes longer than an epoch here; after a save, its own file alone is still to be written."""
    write_last, save_last = run_checkpoints.write_last, RunCheckpoints.save_last
    done: list[object] = []
    behind: list[int] = []

    def slow(folder: Path, content: dict[str, object]) -> None:
        time.sleep(0.2)
        write_last(folder, content)
        done.append(content["epoch"])

    def save(self: RunCheckpoints, history: Sequence[object], *others: object) -> None:
        save_last(self, history, *others)  # type: ignore[arg-type]
        behind.append(len(history) - len(done))

    monkeypatch.setattr(run_checkpoints, "write_last", slow)
    monkeypatch.setattr(RunCheckpoints, "save_last", save)
    fit(configure(*SMALL, "stage=head", "head.solver=sgd"), SPLITS, tmp_path)
    assert behind == [1, 1, 1]
    assert done == [1, 2, 3]


@pytest.mark.parametrize(
    ("stage", "weights", "saved"),
    [
        ("head", "pretrained", {"fc"}),
        ("partial", "pretrained", {"fc", "body", "token"}),
        ("full", "pretrained", {"fc", "body", "token", "stem"}),
        ("head", "null", {"fc", "body", "token", "stem"}),
    ],
)
def test_last_pt_has_what_a_resumed_run_cannot_compute(
    configure: Compose, tmp_path: Path, stage: str, weights: str, saved: set[str]
) -> None:
    fit(configure(*SMALL, f"stage={stage}", "stage.epochs=1", f"model.weights={weights}"), SPLITS, tmp_path)
    last, best = (load_checkpoint(tmp_path / "checkpoints" / name) for name in ("last.pt", "best.pt"))
    assert {name.partition(".")[0] for name in last["model"]} == saved
    assert set(best["model"]) == set(fresh_network().module.state_dict())
    assert (last["frozen"] is None) == (weights == "null")
    assert "frozen" not in best


def test_a_later_phase_saves_all_weights(configure: Compose, tmp_path: Path) -> None:
    fit(configure(*SMALL, "stage=staged", "stage.epochs=1", "stage.gate=off"), SPLITS, tmp_path)
    last = load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert last["frozen"] is None
    assert set(last["model"]) == set(fresh_network().module.state_dict())


def test_other_frozen_weights_than_those_it_began_with_are_refused(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(*SMALL, "stage=head", "stage.epochs=1")
    fit(config, SPLITS, tmp_path)
    network = fresh_network()
    with torch.no_grad():
        network.module.stem[0].weight[0, 0, 0, 0] += 1e-6
    monkeypatch.setattr("tiny_runs.fresh_network", lambda: network)
    with pytest.raises(CheckpointError, match=r"model\.weights gives now are not those that the run began with"):
        fit(resumed(config, tmp_path), SPLITS, tmp_path)


def test_a_file_with_only_some_weights_is_no_network(configure: Compose, tmp_path: Path) -> None:
    fit(configure(*SMALL, "stage=head", "stage.epochs=1"), SPLITS, tmp_path)
    file = tmp_path / "checkpoints" / "last.pt"
    with pytest.raises(WeightsError, match=r"last.pt has only the weights .*Give best.pt beside it"):
        read_weights(file)
    with pytest.raises(CheckpointError, match=r"last.pt has only the weights .*Give best.pt beside it"):
        load_checkpoint_file(file, "cpu")


def checkpoints_of(config: Config, folder: Path) -> RunCheckpoints:
    return RunCheckpoints(folder, fresh_network(), config, {}, ONE_PROCESS)


@pytest.mark.parametrize("first", [None, InterruptedRunError(2)])
def test_a_signal_before_all_is_written_says_that_it_is_not(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: InterruptedRunError | None
) -> None:
    checkpoints = checkpoints_of(configure(*SMALL), tmp_path)

    def interrupted() -> None:
        raise InterruptedRunError(15)

    monkeypatch.setattr(checkpoints._writer, "close", interrupted)
    with pytest.raises(InterruptedRunError) as stopped:
        checkpoints.__exit__(type(first), first, None)
    assert (stopped.value.signal, stopped.value.saved) == (15, False)
    assert InterruptedRunError(2).saved
