from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bad_images import find_bad_images
from shards import png, serving

from ftexp.data import remote
from ftexp.data.digests import ContentDigests, bytes_digest
from ftexp.data.loading.images import open_image
from ftexp.data.loading.limits import ImageLimits
from ftexp.data.places import Container, Part, WholeUrl
from ftexp.data.remote import NetworkError, UnreadableError, read_url
from ftexp.data.samples import Sample
from ftexp.errors import DataError
from ftexp.inference.given import GivenImage


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0)


def part_of(file: Path, content: bytes) -> Part:
    file.write_bytes(b"before" + content + b"after")
    return Part(Container.of(str(file)), len(b"before"), len(content))


def test_a_part_is_read_by_threads_and_after_pickling(tmp_path: Path) -> None:
    place = part_of(tmp_path / "a", b"content")
    assert pickle.loads(pickle.dumps(place)).read() == b"content"
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: place.read(), range(50))) == {b"content"}


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    place = part_of(tmp_path / "a", b"content")
    (tmp_path / "a").write_bytes(b"another, longer content")
    with pytest.raises(UnreadableError, match="has been changed since its images were listed; start again"):
        place.read()


def test_a_part_behind_the_end(tmp_path: Path) -> None:
    place = part_of(tmp_path / "a", b"content")
    with pytest.raises(UnreadableError, match="ends before it; copy or download that file again"):
        Part(place.container, 6, 1000).read()


def test_digests_are_of_the_part_and_change_with_it(tmp_path: Path) -> None:
    digests = ContentDigests()
    for _ in range(2):
        sample = Sample("a/1", "x", place=part_of(tmp_path / "a", b"content"))
        assert digests.of(sample) == bytes_digest(b"content")
    assert digests.of(Sample("a/1", "x", place=part_of(tmp_path / "a", b"changed"))) == bytes_digest(b"changed")


def test_a_damaged_image_is_described_by_its_own_bytes(tmp_path: Path) -> None:
    sample = Sample("a.tar/0.jpg", "x", place=part_of(tmp_path / "a", b"%PDF-1.7"))
    message = r"^a\.tar/0\.jpg: is a PDF; save its images as PNG or JPEG$"
    with pytest.raises(DataError, match=message):
        open_image(sample)
    with pytest.raises(DataError, match=message):
        GivenImage(sample.place, sample.path).open()
    assert find_bad_images([sample])[0][1] == "is a PDF; save its images as PNG or JPEG"


def test_a_large_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = part_of(tmp_path / "a", b"x" * 3000)
    monkeypatch.setattr(Part, "read", lambda self: pytest.fail("it was read"))
    with pytest.raises(UnreadableError, match=r"above data\.max_file_mib"):
        ImageLimits(max_file_bytes=2999).read(place)


def test_an_image_at_a_url() -> None:
    with serving({"0.png": png("red", 0)}) as url:
        assert open_image(Sample(f"{url}/0.png", "x", place=WholeUrl(f"{url}/0.png"))).size == (40, 40)
        with pytest.raises(UnreadableError, match=r"above data\.max_file_mib"):
            ImageLimits(max_file_bytes=10).read(WholeUrl(f"{url}/0.png"))


def test_reasons_of_a_server() -> None:
    with serving({}) as url:
        reasons = {name: find_bad_images([at(f"{url}/{name}")])[0][1] for name in ("none", "forbidden", "broken")}
    assert reasons["none"] == "there is no such file"
    assert reasons["forbidden"].endswith("(permission denied)")
    assert reasons["broken"].startswith("cannot be reached: 503")


def at(url: str) -> Sample:
    return Sample(url, "x", place=WholeUrl(url))


def test_a_server_that_is_not_there_is_asked_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    with pytest.raises(NetworkError, match=r"cannot be reached: .*; check the address and the network"):
        read_url("http://127.0.0.1:1/a")
    assert len(pauses) == 2


def test_what_a_server_says_of_a_file_that_is_listed() -> None:
    """Which fsspec calls a missing file for any reason."""
    with pytest.raises(NetworkError, match="cannot be reached: "):
        Container.of("http://127.0.0.1:1/a.tar")
    with serving({}) as url:
        for name, error in (("none", FileNotFoundError), ("forbidden", PermissionError), ("broken", NetworkError)):
            with pytest.raises(error):
                Container.of(f"{url}/{name}")
        with pytest.raises(NetworkError, match=r"cannot be reached: Server disconnected \(ServerDisconnectedError\)"):
            Container.of(f"{url}/lost")  # which is no OSError


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/a", r"s3:// needs a package that is not installed: pip install s3fs"),
        ("gs://bucket/a", r"gs:// needs a package that is not installed: pip install gcsfs"),
        ("htps://a/b", r"fsspec knows no htps://. Did you mean 'https'\?"),
        ("xyz://a", r"fsspec knows no xyz://\.$"),
    ],
)
def test_schemes_that_cannot_be_read(url: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UnreadableError, match=reason):
        read_url(url)


def test_a_chain_keeps_the_file_on_this_machine(tmp_path: Path) -> None:
    requests: list[str] = []

    class Counted(dict):  # type: ignore[type-arg]
        def get(self, name: str, default: object = None) -> object:
            requests.append(name)
            return super().get(name, default)

    with serving(Counted({"a": b"0123456789"}), ranges=False) as url:
        part = Part(Container(f"simplecache::{url}/a", ""), 2, 3)
        assert part.read() == b"234"
        before = len(requests)
        assert part.read() == b"234"
        assert len(requests) == before
