from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftexp.data.loading.tensor_file import TensorWriter, map_file
from ftexp.data.loading.tensor_store import Append, Fill, StoreError, StoreFullError, TensorStore

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


def test_cached_tensors_are_not_computed_again(tmp_path: Path) -> None:
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


@pytest.mark.skipif(sys.platform != "linux", reason="other systems reserve no memory for a map")
def test_a_file_larger_than_memory_and_swap_is_mapped(tmp_path: Path) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine reserves memory for every map")
    file = tmp_path / "sparse"
    file.write_bytes(bytes(8))
    os.truncate(file, 2**40)
    tensor = torch.frombuffer(map_file(file), dtype=torch.uint8, count=4, offset=2**40 - 4)
    tensor[-1] = 7
    assert tensor.tolist() == [0, 0, 0, 7]
    with file.open("rb") as stream:
        stream.seek(-4, os.SEEK_END)
        assert stream.read() == bytes(4), "the file is unchanged"


def test_without_a_folder_nothing_is_cached(tmp_path: Path) -> None:
    store = TensorStore(None, limit_gib=1)
    assert [store.get("a", rows(1.0)).found for _ in range(2)] == [False, False]


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, limit_gib=3.5 * FILE_BYTES / 2**30)
    a, b, c, d = (letter * 32 for letter in "abcd")
    for number, key in enumerate((a, b, c)):
        store.get(key, rows(1.0))
        os.utime(tmp_path / f"{key}.safetensors", (number, number))
    store.get(a, refuse)  # used: now the newest
    store.get(d, rows(4.0))
    assert files(tmp_path) == {a, c, d}


def test_files_that_are_not_of_the_store_are_neither_removed_nor_counted(tmp_path: Path) -> None:
    theirs = [tmp_path / name for name in ("model.safetensors", f"{'A' * 32}.safetensors", f"{'a' * 33}.tmp", "x.tmp")]
    for file in theirs:
        file.write_bytes(bytes(100 * KIB))
        os.utime(file, (1, 1))
    store = TensorStore(tmp_path, limit_gib=2.5 * FILE_BYTES / 2**30)
    for key in ("a" * 32, "b" * 32):
        store.get(key, rows(1.0))
    assert files(tmp_path) >= {"a" * 32, "b" * 32}, "there is room for both"
    assert all(file.exists() for file in theirs)


def test_tensors_larger_than_the_cache_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    store = TensorStore(tmp_path, limit_gib=0.9 * KIB / 2**30)
    with pytest.raises(StoreFullError, match=r"runtime\.cache_gib"):
        store.get("a", rows(1.0))
    assert not list(tmp_path.glob("*.safetensors")) + list(tmp_path.glob("*.tmp"))


def test_tensors_that_grow_beyond_the_cache_are_refused_while_they_grow(tmp_path: Path) -> None:
    parts: list[int] = []

    def fill(append: Append) -> Mapping[str, torch.Tensor]:
        for number in range(1000):
            append(torch.ones(1, KIB // 4))
            parts.append(number)
        return {}

    with pytest.raises(StoreFullError, match=r"runtime\.cache_gib"):
        TensorStore(tmp_path, limit_gib=20 * KIB / 2**30).get("a", fill)
    assert len(parts) == 20


def test_files_of_crashed_processes_are_deleted_later_and_those_being_written_stay(tmp_path: Path) -> None:
    old, new = tmp_path / f"{'a' * 32}.tmp", tmp_path / f"{'b' * 32}.tmp"
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


def test_damaged_and_foreign_files_are_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = TensorStore(tmp_path, limit_gib=1)
    for key, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        store.get(key, rows(value))
    file = tmp_path / "a.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1  # one bit of a row
    file.write_bytes(content)
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes())
    assert [store.get(key, rows(9.0)).found for key in "abc"] == [False, False, True]
    assert [store.get(key, refuse).rows[0, 0].item() for key in "abc"] == [9.0, 9.0, 3.0]
    assert caplog.text.count("is damaged") == 2


def test_a_file_without_a_checksum_is_of_an_older_ftexp_and_no_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"rows": torch.zeros(4, 64)}, tmp_path / "a.safetensors")
    file = tmp_path / "a.safetensors"
    content = file.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].ljust(4 * KIB - 8)
    file.write_bytes((4 * KIB - 8).to_bytes(8, "little") + header + bytes(KIB))
    assert not TensorStore(tmp_path, limit_gib=1).get("a", rows(1.0)).found
    assert not caplog.messages


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "fault", ["a file", "below a file", "a folder in place", "full", "full at the end", "no locks"]
)
def test_an_unusable_folder_causes_one_warning(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "kept"
    if fault in ("a file", "below a file"):
        folder.touch()
    folder = folder / "below" if fault == "below a file" else folder
    if fault == "a folder in place":
        (folder / "a.safetensors").mkdir(parents=True)
    if fault.startswith("full"):
        call = "_put" if fault == "full" else "_write"
        original = getattr(TensorWriter, call)

        def write(self: TensorWriter, first: object, *rest: object) -> None:
            if fault == "full" or first == 0:  # the header, which comes last, stands at the beginning
                raise NO_ROOM
            original(self, first, *rest)

        monkeypatch.setattr(TensorWriter, call, write)
    if fault == "no locks":
        refused = NotImplementedError("FileSystem does not appear to support flock")
        monkeypatch.setattr("ftexp.data.loading.tensor_store.FileLock", lambda _: (_ for _ in ()).throw(refused))
    for _ in range(2):  # a run opens its store for every phase
        store = TensorStore(folder, limit_gib=1)
        with pytest.raises(StoreError, match=r"kept.* cannot be used"):
            store.get("a", rows(1.0))
        assert not store.holds("a")
    (message,) = caplog.messages
    assert message.startswith(f"cache   off: {folder} cannot be used (")
    assert "set another folder with runtime.cache_folder=FOLDER" in message
    assert not list(tmp_path.glob("**/*.tmp"))


def test_two_files_in_the_making_fail_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise NO_ROOM

    monkeypatch.setattr(TensorWriter, "append", full)
    store = TensorStore(tmp_path, limit_gib=1)
    with store.place("a") as first, store.place("b") as second:
        for place in (first, second):
            with pytest.raises(StoreError, match="No space left on device"):
                place.append(torch.zeros(1, 64))  # type: ignore[union-attr]
    assert len(caplog.messages) == 1


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
