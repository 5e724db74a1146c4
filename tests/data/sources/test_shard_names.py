from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from ftexp.data.sources.shard_names import expand_braces, find_shards, split_names
from ftexp.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{002..000}", ["002", "001", "000"]),
        ("{10..08}", ["10", "09", "08"]),
        ("{09..100}", [f"{n:03d}" for n in range(9, 101)]),
        ("{0..10}", [str(n) for n in range(11)]),
        ("{3..3}", ["3"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


def test_globs_folders_and_numbers_in_natural_order(tmp_path: Path) -> None:
    for name in ("a2.tar", "a10.tar", "b.txt"):
        (tmp_path / name).touch()
    expected = [str(tmp_path / "a2.tar"), str(tmp_path / "a10.tar")]
    for pattern in (f"{tmp_path}/*.tar", str(tmp_path), f"{tmp_path}/a{{2,10}}.tar"):
        assert find_shards("data.shards", pattern) == expected


def test_missing_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(DataError, match=r": no file is named .*/1\.tar, .*/2\.tar\.$"):
        find_shards("data.shards", f"{tmp_path}/{{0..2}}.tar")
    (tmp_path / "empty").mkdir()
    for given, named in (("none-*.tar", r"none-\*\.tar"), ("empty", r"empty/\*\.tar")):
        with pytest.raises(DataError, match=rf"no file is named \S*/{named}\.$"):
            find_shards("data.shards", f"{tmp_path}/{given}")
    with pytest.raises(DataError, match=r"names a file twice: .*/0\.tar"):
        find_shards("data.shards", f"{tmp_path}/{{0,?}}.tar")


def test_a_glob_in_a_bucket() -> None:
    for name in ("b", "a"):
        fsspec.filesystem("memory").pipe(f"/names/{name}.tar", b"x")
    assert find_shards("data.shards", "memory://names/*.tar") == ["memory:///names/a.tar", "memory:///names/b.tar"]
    with pytest.raises(DataError, match=r"memory://names/\*\.zip\.$"):
        find_shards("data.shards", "memory://names/*.zip")


@pytest.mark.parametrize(
    ("shards", "splits"),
    [
        (["x/train-0.tar", "x/val-0.tar"], ["train", "val"]),
        (["x/pets_train_0.tar", "x/pets_test_0.tar"], ["train", "test"]),
        (["s3://b/train/0.tar", "s3://b/test/0.tar"], ["train", "test"]),
        (["x/0.tar", "x/1.tar"], [None, None]),
    ],
)
def test_splits_by_name(shards: list[str], splits: list[str | None]) -> None:
    assert split_names(shards) == splits
