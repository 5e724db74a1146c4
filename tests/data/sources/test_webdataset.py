from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path

import fsspec
import pytest
from shards import COLOURS, png, serving, shard, tar_bytes, write_shards

from ftexp.config import WebDatasetConfig
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.data.sources import shard_index
from ftexp.data.sources.webdataset import read_webdataset
from ftexp.errors import DataError

RED = png("red", 0)


def read(shards: Path | str, **settings: str | None) -> list[Sample]:
    kept: dict[str, str | None] = {"index": None} | settings
    return read_webdataset(WebDatasetConfig(source="webdataset", shards=str(shards), **kept))  # type: ignore[arg-type]


def read_one(tmp_path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], **settings: str) -> list[Sample]:
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    return read(tmp_path / "a.tar", **settings)


def colour_of(sample: Sample) -> str:
    mean = open_image(sample).resize((1, 1)).getpixel((0, 0))
    return list(COLOURS)[list(mean).index(max(mean))]  # type: ignore[arg-type]


def test_images_and_labels_of_two_shards(tmp_path: Path) -> None:
    samples = read(write_shards(tmp_path, count=2, images=3))
    assert [(Path(s.path).name, Path(s.path).parent.name, s.label, s.split) for s in samples] == [
        (f"{n:04d}.png", f"part-00{n // 3}.tar", colour, None) for n, colour in enumerate([*COLOURS, *COLOURS])
    ]
    assert [colour_of(sample) for sample in samples] == [sample.label for sample in samples]


def test_splits_are_those_of_the_names(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").write_bytes(shard(0, 3))
    (tmp_path / "val-0.tar").write_bytes(shard(3, 3))
    assert [sample.split for sample in read(tmp_path)] == ["train"] * 3 + ["val"] * 3


def test_json_has_label_group_and_time(tmp_path: Path) -> None:
    facts = json.dumps({"class": 3.0, "who": "ann", "when": "2020-01-02", "caption": ["x"]}).encode()
    [sample] = read_one(
        tmp_path, {"d/0.jpg": RED, "d/0.json": facts}, label_key="class", group_key="who", time_key="when"
    )
    assert (sample.label, sample.group, sample.time) == ("3", "ann", "2020-01-02")


def test_class_numbers_get_their_names(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    members = {"0.jpg": RED, "0.cls": b"1\n", "1.jpg": RED, "1.cls": b"0"}
    assert [s.label for s in read_one(tmp_path, members, classes=f"{tmp_path}/classes.txt")] == ["dog", "cat"]
    with pytest.raises(DataError, match=r"a\.tar/0\.jpg: its class 2 is not among the 2 of data\.classes"):
        read_one(tmp_path, {"0.jpg": RED, "0.cls": b"2"}, classes=f"{tmp_path}/classes.txt")


def test_clutter_is_no_image(tmp_path: Path) -> None:
    members = {"._0.jpg": b"x", "__key__.jpg": b"x", "./0.jpg": RED, "0.cls": b"a", "0.txt": b"caption"}
    assert [Path(s.path).name for s in read_one(tmp_path, members)] == ["0.jpg"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.jpg": RED, "0.cls": b"a", "1.jpg": RED}, r"a\.tar: 1\.jpg has no label. Give each image a \.cls"),
        ({"0.json": b'{"label": 1, "url": ""}', "0.jpg": RED}, r"data\.label_key=… \(label, url\)"),
        (
            {"0.left.jpg": RED, "0.right.jpg": RED, "0.cls": b"a"},
            r"two images with the key 0: 0\.left\.jpg and 0\.right\.jpg. .* data\.image_member=right\.jpg",
        ),
        ([("0.jpg", RED), ("0.cls", b"a"), ("0.jpg", RED)], r"a\.tar has two members called 0\.jpg"),
        ({"0.jpg": RED, "0.cls": b"\xff\xfe"}, r"0\.cls is not UTF-8 text"),
        ({"0.jpg": RED, "0.cls": b" "}, r"0\.cls contains nothing, which cannot be a label"),
        ({"0.jpg": RED, "0.cls": b"a\nb"}, r"0\.cls contains 'a\\nb', which cannot be a label"),
        ({"0.cls": b"a"}, r"there is no image in its 1 shards"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, members: dict[str, bytes] | list[tuple[str, bytes]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_one(tmp_path, members)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"other": 1}', r"0\.json has no 'label' \(data\.label_key\). It has: other\."),
        (b'{"label": [1, 2]}', r"'label' of 0\.json is a list"),
        (b"{", r"0\.json is not JSON"),
    ],
)
def test_what_is_wrong_in_a_json(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_one(tmp_path, {"0.jpg": RED, "0.json": content}, label_key="label")


def test_the_chosen_of_two_images_counts(tmp_path: Path) -> None:
    members = {"0.left.jpg": RED, "0.right.jpg": RED, "0.cls": b"a"}
    assert [Path(s.path).name for s in read_one(tmp_path, members, image_member="left.jpg")] == ["0.left.jpg"]


def test_one_name_in_two_shards_is_two_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(shard(0, 1))
    assert len({sample.path for sample in read(tmp_path)}) == 2


def test_labels_without_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="ftexp")
    read_one(tmp_path, {"0.jpg": RED, "0.cls": b"a", "1.cls": b"b", "2.cls": b"b"})
    assert "2 labels have no image and are not used, for example that of 1." in caplog.text


def test_a_shard_is_listed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, index = write_shards(tmp_path, count=1, images=3) / "part-000.tar", tmp_path / "index"
    read(file, index=str(index))
    assert not index.exists()  # written within the last seconds, it may change again at the same time
    os.utime(file, (10**9, 10**9))
    first = read(file, index=str(index))
    listed: list[str] = []
    reader = shard_index.TarReader
    monkeypatch.setattr(shard_index, "TarReader", lambda name, *rest: (listed.append(name), reader(name, *rest))[1])
    second = read(file, index=str(index))
    assert [(s.path, s.label, s.place) for s in second] == [(s.path, s.label, s.place) for s in first]
    assert listed == []
    file.write_bytes(shard(3, 6))
    os.utime(file, (10**9 + 1, 10**9))
    assert len(read(file, index=str(index))) == 6
    assert listed == [str(file)]


def test_a_damaged_index_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="ftexp")
    file = write_shards(tmp_path, count=1, images=3) / "part-000.tar"
    os.utime(file, (10**9, 10**9))
    read(file, index=str(tmp_path / "index"))
    [kept] = (tmp_path / "index").iterdir()
    kept.write_bytes(b"x")
    assert len(read(file, index=str(tmp_path / "index"))) == 3
    assert "is damaged" in caplog.text


def test_shards_of_a_bucket_and_of_a_web_server() -> None:
    fsspec.filesystem("memory").pipe("/bucket/a.tar", shard(0, 3))
    assert [colour_of(s) for s in read("memory://bucket/*.tar")] == list(COLOURS)
    with serving({"a.tar": shard(0, 3)}) as url:
        samples = read(f"{url}/a.tar")
        assert [s.path for s in samples] == [f"{url}/a.tar/{n:04d}.png" for n in range(3)]
        assert [colour_of(sample) for sample in samples] == list(COLOURS)


def test_a_server_without_ranges_is_refused() -> None:
    message = r"the server sends whole files only .*filecache::http"
    with serving({"a.tar": shard(0, 3)}, ranges=False) as url, pytest.raises(DataError, match=message):
        open_image(read(f"{url}/a.tar")[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lost.tar", r"Server disconnected \(ServerDisconnectedError\)"),
        ("half.tar", r"Response payload is not completed: .* \(ClientPayloadError\)"),
        ("lost/*.tar", r"Server disconnected \(ServerDisconnectedError\)"),
    ],
)
def test_a_lost_connection_is_no_missing_shard(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftexp.data.remote.PAUSE_SECONDS", 0)
    with serving({"half.tar": shard(0, 30)}) as url:
        message = rf"{url}/{re.escape(name)}: cannot be reached: {said}; check the address and the network\.$"
        with pytest.raises(DataError, match=message):
            read(f"{url}/{name}")


def test_a_missing_shard_at_a_url() -> None:
    with pytest.raises(DataError, match=r"memory://bucket/none\.tar: there is no such file\.$"):
        read("memory://bucket/none.tar")
