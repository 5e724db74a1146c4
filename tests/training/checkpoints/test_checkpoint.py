"""A checkpoint file is always complete, the old or the new one, even if the process or the machine dies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Compose, scores_of

from ftexp.errors import CheckpointError
from ftexp.evaluation.best import Best
from ftexp.evaluation.history import EpochRecord
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.models.blocks import Network
from ftexp.training.checkpoints.checkpoint import load_checkpoint, write_checkpoint, write_last
from ftexp.training.checkpoints.run_checkpoints import BEST, RunCheckpoints


class KilledError(BaseException):
    """In the place of kill -9: nothing in the project catches it."""


@pytest.fixture
def checkpoints(configure: Compose, network: Network, tmp_path: Path) -> RunCheckpoints:
    return RunCheckpoints(tmp_path, network, configure(), {"a": 0, "b": 1, "c": 2, "d": 3}, ONE_PROCESS)


def best_of(epoch: int, checkpoints: RunCheckpoints) -> Best:
    record = EpochRecord("phase", epoch, 1.0, 1.0, {"accuracy": 0.5}, 1.0, 0.0, 0.1, None, 1.0, 1.0, True)
    labels = torch.arange(4).numpy()
    return checkpoints.best_of_phase(record, scores_of(labels, labels, 4))


def die(*_: object, **__: object) -> None:
    raise KilledError


def die_half_way(content: object, file: object) -> None:
    file.write(b"PK half of it")  # type: ignore[attr-defined]
    raise KilledError


@pytest.mark.parametrize(
    ("owner", "name", "death"), [(torch, "save", die_half_way), (os, "fsync", die), (os, "replace", die)]
)
def test_best_pt_stays_whole_when_the_process_dies_while_it_is_written(
    checkpoints: RunCheckpoints, owner: object, name: str, death: Callable[..., None]
) -> None:
    with checkpoints:
        checkpoints.save_best(best_of(1, checkpoints))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, death)
        with pytest.raises(KilledError), checkpoints:
            checkpoints.save_best(best_of(2, checkpoints))
    assert load_checkpoint(checkpoints.folder / BEST)["epoch"] == 1
    with checkpoints:
        checkpoints.save_best(best_of(2, checkpoints))
    assert load_checkpoint(checkpoints.folder / BEST)["epoch"] == 2


@pytest.mark.parametrize("write", [lambda folder: write_checkpoint(folder / BEST, {"model": {}}), None])
def test_it_gets_its_name_after_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None] | None
) -> None:
    """Without fsync a power cut may leave the name with nothing in it."""
    events: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(f"name {Path(b).name}"), replace(a, b)))
    (write or (lambda folder: write_last(folder, {"model": {}})))(tmp_path)
    assert events == (["sync", f"name {BEST}"] if write else ["sync", "name fresh.pt", "name last.pt"])


def test_a_disk_that_is_full_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / BEST, {"model": {}, "epoch": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"best.pt cannot be written: .*No space left on device.*Free some disk"):
        write_checkpoint(tmp_path / BEST, {"model": {}, "epoch": 2})
    assert load_checkpoint(tmp_path / BEST)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == [BEST]


def test_the_weights_of_a_later_phase_are_best_pt_once_they_are_kept(checkpoints: RunCheckpoints) -> None:
    def phase_ends(epoch: int, *, kept: bool) -> Best:
        with torch.no_grad():
            checkpoints.network.module.token.fill_(epoch)
        best = best_of(epoch, checkpoints)
        with checkpoints:
            checkpoints.save_best(best)
        waits = {file.name for file in checkpoints.folder.iterdir()}
        assert waits == ({BEST} if epoch == 1 else {BEST, "candidate.pt"})
        assert load_checkpoint(checkpoints.folder / BEST)["epoch"] == (1 if checkpoints.best is None else reached[-1])
        checkpoints.settle(best, kept=kept)
        left = {file.name for file in checkpoints.folder.iterdir()}
        assert left == ({BEST} if kept else {BEST, "candidate.pt"}), "a resumed run may have to end the phase again"
        assert checkpoints.best is not None
        return checkpoints.best

    reached: list[int] = []
    for epoch, kept, expected in ((1, True, 1), (2, False, 1), (3, True, 3), (4, False, 3)):
        best = phase_ends(epoch, kept=kept)
        reached.append(best.record.epoch)
        assert reached[-1] == load_checkpoint(best.checkpoint)["epoch"] == expected
        assert best.checkpoint == checkpoints.folder / BEST
        assert checkpoints.network.module.token.mean() == expected  # the best weights are in the network again
    checkpoints.clean_up(keep_last=True)
    assert [file.name for file in checkpoints.folder.iterdir()] == [BEST]


def test_a_folder_that_was_moved_is_not_begun_anew_under_its_old_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_last(tmp_path / "run" / "checkpoints", {"model": {}})
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"run, the folder of the run, no longer exists: it was moved or removed"):
        write_last(tmp_path / "run" / "checkpoints", {"model": {}})
    assert not (tmp_path / "run").exists()
