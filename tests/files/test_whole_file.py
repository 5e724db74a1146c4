"""A file is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ftexp.files.whole_file import replaced_whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "x.json").write_text("earlier")
    return tmp_path / "x.json"


def test_the_new_content_appears_at_the_end_of_the_block(file: Path) -> None:
    with replaced_whole(file) as unfinished:
        unfinished.write_text("new")
        assert file.read_text() == "earlier"
        assert unfinished.parent == file.parent, "a rename is atomic only within a file system"
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def write_half(file: Path, error: BaseException) -> None:
    with replaced_whole(file) as unfinished:
        unfinished.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.EIO, "broken", "other.png")])
def test_an_error_in_the_block_leaves_the_earlier_file_and_stays_as_it_is(file: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        write_half(file, error)
    assert caught.value is error
    assert file.read_text() == "earlier"
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("named", [(), ("/.x.json.{pid}.tmp",)])
def test_an_error_of_the_disk_names_the_file_that_is_replaced(file: Path, named: tuple[str, ...]) -> None:
    names = [str(file.parent) + name.format(pid=os.getpid()) for name in named]
    with pytest.raises(OSError, match="No space left") as caught:
        write_half(file, OSError(errno.ENOSPC, "No space left on device", *names))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(file))


@pytest.mark.parametrize(("durable", "expected"), [(True, ["sync", "name"]), (False, ["name"])])
def test_a_durable_file_is_on_the_disk_before_it_has_its_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, expected: list[str]
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), sync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("name"), replace(a, b)))
    with replaced_whole(file, durable=durable) as unfinished:
        unfinished.write_text("new")
    assert events == expected


def test_only_a_file_that_several_processes_write_has_the_process_in_its_unfinished_name(file: Path) -> None:
    with replaced_whole(file, only_writer=True) as unfinished:
        unfinished.write_text("new")
        assert unfinished.name == ".x.json.tmp", "the next attempt overwrites what a killed process left behind"
    with replaced_whole(file) as unfinished:
        unfinished.write_text("newest")
        assert unfinished.name == f".x.json.{os.getpid()}.tmp"
    assert file.read_text() == "newest"
