from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards import tar_bytes

from ftexp.data.sources.tar_members import Member, TarReader
from ftexp.errors import DataError

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def members(content: bytes) -> list[Member]:
    reader = TarReader("a.tar", lambda offset, count: content[offset : offset + count], len(content))
    return list(reader.members())


def by_tarfile(content: bytes) -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [Member(one.name, one.offset_data, one.size) for one in tar if one.isreg()]


@given(st.lists(st.tuples(st.text("aé/.猫", min_size=1, max_size=120), st.binary(max_size=1500)), max_size=6))
def test_members_are_those_that_tarfile_finds(files: list[tuple[str, bytes]]) -> None:
    for form in FORMATS[1:]:  # ustar cannot have every name
        content = tar_bytes([(f"d{i}{name}z", data) for i, (name, data) in enumerate(files)], format=form)
        assert members(content) == by_tarfile(content)


@pytest.mark.parametrize("form", FORMATS)
def test_long_names_folders_links_and_float_times(form: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a" * 99
            tar.addfile(info)
        for name in ("x" * 90 + "/" + "y" * 90 + ".jpg", "0.jpg"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 600, 1.5  # type: ignore[assignment]  # as WebDataset's writer does
            tar.addfile(info, io.BytesIO(b"x" * 600))
    found = members(file.getvalue())
    assert [one.name for one in found] == ["x" * 90 + "/" + "y" * 90 + ".jpg", "0.jpg"]
    assert found == by_tarfile(file.getvalue())


def test_offsets_by_hand() -> None:
    content = tar_bytes({"a.jpg": b"abc", "b.jpg": b"d" * 513})
    assert members(content) == [("a.jpg", 512, 3), ("b.jpg", 1536, 513)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            tar_bytes({"a.jpg": b"x" * 3000})[:2000],
            r"a\.tar ends within a\.jpg: it was not written",
        ),
        (tar_bytes({"a.jpg": b"x" * 512})[:1024], r"a\.tar has no end: it was not"),
        (tar_bytes({"a.jpg": b"x"}) * 2, r"has data after its end mark, as tars joined with cat do"),
        (gzip.compress(tar_bytes({"a.jpg": b"x"}), mtime=0), r"is compressed \(gzip\), so single images"),
        (b"<html>" + b"x" * 600, r"a\.tar is not a tar \(606 bytes\)"),
        (b"", r"a\.tar is not a tar \(0 bytes\)"),
        (tar_bytes({"a.jpg": b"x"})[:1024] + b"y" * 512, r"a\.tar is damaged at byte 1,024"),
    ],
    ids=["short", "without end", "joined", "compressed", "page", "empty", "damaged"],
)
def test_what_is_no_whole_tar_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        members(content)


def test_sizes_above_eight_gigabytes() -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 9 * 2**30
    header = info.tobuf(tarfile.GNU_FORMAT)
    reader = TarReader("a.tar", lambda offset, count: (header + bytes(1024) if not offset else b"")[:count], 10 * 2**30)
    assert next(reader.members()) == ("a.jpg", 512, 9 * 2**30)
