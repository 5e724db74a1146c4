from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ftexp.data.tensor_store import Append, Fill, StoreFullError, TensorStore

KIB = 2**10
FILE_BYTES = 5 * KIB  # 1 KiB of rows behind a header of 4 KiB


def rows(value: float) -> Fill:
    """Two parts of two rows, 1 KiB in all."""

    def fill(append: Append) -> Mapping[str, torch.Tensor]:
        for _ in range(2):
            append(torch.full((2, 64), value))
        return {"note": torch.tensor([1, 2])}

    return fill


def refuse(append: Append) -> Mapping[str, torch.Tensor]:
    raise AssertionError("computed although it was kept")


def files(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.safetensors")}


def test_what_is_kept_is_not_computed_again(tmp_path: Path) -> None:
    first = TensorStore(tmp_path / "store", limit_gib=1).get("a", rows(1.5))
    again = TensorStore(tmp_path / "store", limit_gib=1).get("a", refuse)
    assert (first.found, again.found) == (False, True)
    for kept in (first, again):
        assert torch.equal(kept.rows, torch.full((4, 64), 1.5))
        assert kept.notes["note"].tolist() == [1, 2]
    again.release()
    assert torch.equal(again.rows, first.rows), "released pages come again"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float32])
def test_files_are_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(24).view(2, 3, 4).to(dtype)

    def fill(append: Append) -> Mapping[str, torch.Tensor]:
        append(values[:1])
        append(values[1:])
        return {}

    assert torch.equal(TensorStore(tmp_path, 1).get("a", fill).rows, values)
    assert torch.equal(load_file(tmp_path / "a.safetensors")["rows"], values)


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    store = TensorStore(None, limit_gib=1)
    assert [store.get("a", rows(1.0)).found for _ in range(2)] == [False, False]


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, limit_gib=3.5 * FILE_BYTES / 2**30)
    for number, key in enumerate("abc"):
        store.get(key, rows(1.0))
        os.utime(tmp_path / f"{key}.safetensors", (number, number))
    store.get("a", refuse)  # used: now the newest
    store.get("d", rows(4.0))
    assert files(tmp_path) == {"a", "c", "d"}


def test_what_alone_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, limit_gib=0.9 * KIB / 2**30)
    with pytest.raises(StoreFullError, match=r"runtime\.cache_gib"):
        store.get("a", rows(1.0))
    assert not list(tmp_path.glob("*.safetensors")) + list(tmp_path.glob("*.tmp"))


def test_what_a_crash_left_behind_goes_with_time_and_what_others_write_stays(tmp_path: Path) -> None:
    old, new = tmp_path / "old.tmp", tmp_path / "new.tmp"
    for file in (old, new):
        file.write_bytes(bytes(100 * KIB))
    os.utime(old, (1, 1))
    TensorStore(tmp_path, limit_gib=2 * FILE_BYTES / 2**30).get("a", rows(1.0))
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("left", [0, 100, FILE_BYTES - 1])
def test_a_damaged_file_is_computed_anew_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, left: int) -> None:
    store = TensorStore(tmp_path, limit_gib=1)
    store.get("a", rows(1.0))
    file = tmp_path / "a.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    again = store.get("a", rows(2.0))
    assert not again.found
    assert again.rows.eq(2.0).all()
    assert "is damaged" in caplog.text


def test_a_crash_while_computing_leaves_no_file(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, limit_gib=1)
    with pytest.raises(AssertionError):
        store.get("a", refuse)
    assert not list(tmp_path.glob("*.safetensors")) + list(tmp_path.glob("*.tmp"))
    assert not store.get("a", rows(1.0)).found


def _slowly(folder: Path, computed: Path) -> None:
    def fill(append: Append) -> Mapping[str, torch.Tensor]:
        with computed.open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return rows(1.0)(append)

    assert TensorStore(folder, limit_gib=1).get("a", fill).rows.sum() == 256


def test_of_two_processes_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_slowly, args=(tmp_path / "store", tmp_path / "log")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "x"
