from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch
from conftest import Compose
from test_fit import SMALL, colours, curve, fit, subfolder

from ftexp.data.sealed import SealedTest
from ftexp.data.splits import Splits
from ftexp.training.activation_store import ActivationStore

KIB = 2**10


def tensor(value: float) -> torch.Tensor:
    return torch.full((256,), value)  # 1 KiB


def refuse() -> torch.Tensor:
    raise AssertionError("computed although it was kept")


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / "store", limit_gib=1)
    first, found = store.get("a", lambda: tensor(1.5))
    again, found_again = ActivationStore(tmp_path / "store", limit_gib=1).get("a", refuse)
    assert (found, found_again) == (False, True)
    assert torch.equal(first, again)


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    store = ActivationStore(None, limit_gib=1)
    assert [store.get("a", lambda: tensor(1.0))[1] for _ in range(2)] == [False, False]


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, limit_gib=7 * KIB / 2**30)  # a file is its 1 KiB and about 1 KiB around it
    for number, key in enumerate("abc"):
        store.get(key, lambda: tensor(1.0))
        os.utime(tmp_path / f"{key}.pt", (number, number))
    store.get("a", refuse)  # used: now the newest
    store.get("d", lambda: tensor(4.0))
    kept = {file.stem for file in tmp_path.glob("*.pt")}
    assert "b" not in kept
    assert {"a", "d"} <= kept
    assert sum(file.stat().st_size for file in tmp_path.glob("*.pt")) <= 8 * KIB


def test_a_damaged_file_is_computed_anew_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ActivationStore(tmp_path, limit_gib=1)
    store.get("a", lambda: tensor(1.0))
    file = tmp_path / "a.pt"
    file.write_bytes(file.read_bytes()[:100])
    again, found = store.get("a", lambda: tensor(2.0))
    assert not found
    assert torch.equal(again, tensor(2.0))
    assert "is damaged" in caplog.text


def test_a_crash_while_computing_leaves_no_file(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, limit_gib=1)
    with pytest.raises(AssertionError):
        store.get("a", refuse)
    assert not list(tmp_path.glob("*.pt"))
    assert store.get("a", lambda: tensor(1.0))[1] is False


def _slowly(folder: Path, computed: Path) -> None:
    def compute() -> torch.Tensor:
        with computed.open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return tensor(1.0)

    ActivationStore(folder, limit_gib=1).get("a", compute)


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_slowly, args=(tmp_path / "store", tmp_path / "log")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "x"


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), SealedTest(colours(10, seed=3)), ("b", "g", "r", "x"))


def test_a_second_run_finds_the_activations_of_the_first_and_gives_the_same_curve(
    configure: Compose, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}", "stage=head")
    caplog.set_level("INFO", logger="ftexp")
    first = fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "first"))
    assert "ran once" in caplog.text
    caplog.clear()
    second = fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "second"))
    assert "had run before on these images" in caplog.text
    assert curve(first) == curve(second)


@pytest.mark.parametrize("change", ["image", "order", "weights", "preprocessing"])
def test_anything_that_changes_the_activations_changes_the_key(
    configure: Compose, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    kept = ("runtime.cache=disk", f"runtime.cache_folder={tmp_path / 'kept'}", "stage=head", "stage.epochs=1")
    fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "first"))
    before = {file.name for file in (tmp_path / "kept").glob("*.pt")}
    assert len(before) == 2
    if change == "image":
        assert splits.train[3].pixels is not None
        splits.train[3].pixels[0, 0, 0] ^= 1
    elif change == "order":
        splits.train.reverse()
    else:
        import test_fit

        original = test_fit.fresh_network

        def changed() -> object:
            network = original()
            if change == "weights":
                network.module.stem[1].running_mean[0] += 1e-3
            else:
                network.preprocessing = network.preprocessing.at(16)
            return network

        monkeypatch.setattr(test_fit, "fresh_network", changed)
    fit(configure(*SMALL, *kept), splits, subfolder(tmp_path, "second"))
    added = {file.name for file in (tmp_path / "kept").glob("*.pt")} - before
    # Train and validation have a file each; only a change of the network concerns both.
    assert len(added) == (1 if change in ("image", "order") else 2)
