"""A file is read once for its digest, and again if it may have changed."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ftexp.data import digests as digests_module
from ftexp.data import places
from ftexp.data.digests import ContentDigests, bytes_digest, of_bytes
from ftexp.data.places import Container, LocalFile, Part
from ftexp.data.samples import Sample, SampleTable


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of the test count as old."""
    monkeypatch.setattr(digests_module, "SETTLED_NS", -1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (names.append(self.name), original(self))[1])
    return names


def image(folder: Path, content: bytes = b"first") -> Sample:
    (folder / "image.png").write_bytes(content)
    return Sample(str(folder / "image.png"), "a")


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    sample, digests = image(tmp_path), ContentDigests()
    assert {digests.of(sample) for _ in range(3)} == {bytes_digest(b"first")}
    assert {pickle.loads(pickle.dumps(digests)).of(sample)} == {bytes_digest(b"first")}, "as another rank gets it"
    assert reads == ["image.png"]


@pytest.mark.usefixtures("settled")
def test_a_machine_that_mounts_the_same_files_takes_over_what_is_known_of_them(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of the device is the only thing that differs between the NFS mounts of two machines."""
    sample, digests = image(tmp_path), ContentDigests()
    (tmp_path / "a.tar").write_bytes(b"first")
    part = Part(Container.of(str(tmp_path / "a.tar")), 0, 5)
    in_tar = Sample("a.tar/0.png", "a", place=part)
    known = [digests.of(sample), digests.of(in_tar)]

    def elsewhere(found: os.stat_result) -> Any:
        values = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        return SimpleNamespace(**values | {"st_dev": found.st_dev + 1})

    mounted = SimpleNamespace(
        stat=lambda path: elsewhere(os.stat(path)), fstat=lambda number: elsewhere(os.fstat(number)), path=os.path
    )
    monkeypatch.setattr(places, "os", mounted)
    monkeypatch.setattr(Part, "read", lambda _: pytest.fail("it was read again"))
    assert [digests.of(sample), digests.of(in_tar)] == known
    assert reads == ["image.png"]
    monkeypatch.undo()
    monkeypatch.setattr(places, "os", mounted)
    assert part.read() == b"first", "as it was when it was listed"


def overwrite(file: Path) -> None:
    file.write_bytes(b"other")


def overwrite_and_hide_it(file: Path) -> None:
    state = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def put_another_in_its_place(file: Path) -> None:
    other, state = file.with_suffix(".new"), file.stat()
    other.write_bytes(b"other")
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(file)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", [overwrite, overwrite_and_hide_it, put_another_in_its_place])
def test_a_changed_file_is_read_again(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The content has the length that it had."""
    sample, digests = image(tmp_path), ContentDigests()
    digests.of(sample)
    change(Path(sample.path))
    assert digests.of(sample) == bytes_digest(b"other")


def test_a_file_that_was_written_just_now_is_not_trusted_to_show_a_change(tmp_path: Path, reads: list[str]) -> None:
    sample, digests = image(tmp_path), ContentDigests()
    digests.of(sample)
    digests.of(sample)
    assert reads == ["image.png"] * 2


def test_pixels_in_memory_are_looked_at_each_time() -> None:
    sample, digests = Sample("made-up", "a", pixels=np.zeros((2, 2, 3), np.uint8)), ContentDigests()
    before = digests.of(sample)
    assert sample.pixels is not None
    sample.pixels[0, 0, 0] = 1
    assert digests.of(sample) != before


@pytest.mark.usefixtures("settled")
def test_a_million_images_take_no_more_than_their_digests_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, state = 40_000, image(tmp_path)
    samples = SampleTable.of(Sample(f"{number}.jpg", "a") for number in range(count))
    facts = os.stat(state.path)
    digests = ContentDigests()
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _: facts)
        patched.setattr(LocalFile, "read", lambda _: b"x")
        tracemalloc.start()
        for sample in samples:
            digests.of(sample)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert used / count < 80, "bytes an image"


def test_the_part_of_the_bytes_is_the_same_with_any_white_level(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"an image")
    plain, deep = (ContentDigests().of(Sample(str(file), "a", white_level=level)) for level in (None, 4095.0))
    assert plain != deep
    assert of_bytes(plain) == of_bytes(deep) == plain
