"""Tables whose images are in Parquet, in tars and at URLs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from shards import COLOURS, png, serving, write_shards

from ftexp.config import ManifestConfig
from ftexp.data import parquet_cells
from ftexp.data.loading.images import open_image
from ftexp.data.parquet_cells import Cell
from ftexp.data.samples import Sample
from ftexp.data.sources import parquet_table
from ftexp.data.sources.manifest import read_manifest
from ftexp.data.sources.named_images import named_images
from ftexp.data.sources.parts import Parts
from ftexp.data.sources.webdataset import read_webdataset
from ftexp.data.splitting.splits import build_splits, write_splits
from ftexp.errors import DataError


@pytest.fixture(autouse=True)
def _no_groups_of_earlier_tests() -> None:
    parquet_cells._last_groups.forget()


def read(file: Path | str, **settings: str) -> list[Sample]:
    return read_manifest(ManifestConfig(source="manifest", file=str(file), **settings))  # type: ignore[arg-type]


def table(images: Sequence[object], group_size: int = 2, labels: Sequence[str] | None = None) -> bytes:
    """A Parquet file with these images, in row groups of two."""
    file = io.BytesIO()
    names = labels or [list(COLOURS)[number % 3] for number in range(len(images))]
    columns = {"image": images, "label": pyarrow.array(names)}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, row_group_size=group_size)
    return file.getvalue()


def pictures(count: int) -> list[bytes]:
    return [png(list(COLOURS)[number % 3], number) for number in range(count)]


def colour_of(sample: Sample) -> str:
    mean = open_image(sample).resize((1, 1)).getpixel((0, 0))
    return list(COLOURS)[list(mean).index(max(mean))]  # type: ignore[arg-type]


@pytest.mark.parametrize("as_struct", [False, True])
def test_images_of_small_row_groups_stay_in_the_table(tmp_path: Path, as_struct: bool) -> None:
    images = [{"bytes": one, "path": None} if as_struct else one for one in pictures(5)]
    (tmp_path / "t.parquet").write_bytes(table(images))
    samples = read(tmp_path / "t.parquet", path_column="image")
    assert [s.path for s in samples] == [f"{tmp_path}/t.parquet/000000{row}" for row in range(1, 6)]
    assert [(s.place.row_group, s.place.row) for s in samples if isinstance(s.place, Cell)] == [
        *((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))
    ]
    assert [colour_of(sample) for sample in reversed(samples)] == [sample.label for sample in reversed(samples)]
    assert list(tmp_path.iterdir()) == [tmp_path / "t.parquet"]


def test_the_bytes_of_the_images_are_not_read_to_list_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(5)))
    columns: list[object] = []
    records = parquet_table._records
    monkeypatch.setattr(parquet_table, "_records", lambda *given: (columns.append(given[1]), records(*given))[1])
    read(tmp_path / "t.parquet", path_column="image")
    assert columns == [["label"]]


def test_a_row_group_is_read_once_while_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(6)))
    samples = read(tmp_path / "t.parquet", path_column="image")
    groups: list[int] = []
    read_group = parquet_cells._read_group
    monkeypatch.setattr(parquet_cells, "_read_group", lambda *given: (groups.append(given[1]), read_group(*given))[1])
    for sample in [*samples, *samples]:
        open_image(sample)
    assert groups == [0, 1, 2]
    monkeypatch.setattr(parquet_cells, "KEPT_BYTES", 1)
    parquet_cells._last_groups.forget()
    for number in (0, 0, 1, 0):
        open_image(samples[2 * number])
    assert groups == [0, 1, 2, 0, 1, 0]  # the last one always stays


def test_a_process_that_was_forked_does_not_wait(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(2)))
    sample = read(tmp_path / "t.parquet", path_column="image")[0]
    with parquet_cells._last_groups._lock:
        child = os.fork()
        if not child:
            os._exit(0 if open_image(sample).size == (40, 40) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_table_stands_for_all_its_images(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(3)))
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    found = list(named_images(f"{tmp_path}/t.parquet", Parts()))
    assert [path for path, _ in found] == [f"{tmp_path}/t.parquet/000000{row}" for row in (1, 2, 3)]
    assert [place.read() for _, place in found] == pictures(3)
    with pytest.raises(DataError, match=r"damaged\.parquet cannot be read as Parquet: "):
        list(named_images(f"{tmp_path}/damaged.parquet", Parts()))


def test_a_table_that_changed_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(2)))
    sample = read(tmp_path / "t.parquet", path_column="image")[0]
    (tmp_path / "t.parquet").write_bytes(table(pictures(3)))
    with pytest.raises(DataError, match=r"t\.parquet/0000001: .* has been changed since its images were listed"):
        open_image(sample)


def test_a_table_with_missing_images_is_written_to_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png("blue", 9))
    images = [{"bytes": png("red", 0), "path": None}, {"bytes": None, "path": "x.png"}]
    (tmp_path / "t.parquet").write_bytes(table(images, labels=["red", "blue"]))
    samples = read(tmp_path / "t.parquet", path_column="image")
    assert [colour_of(sample) for sample in samples] == ["red", "blue"]
    assert samples[0].place is samples[1].place is None


def test_several_tables_with_splits_in_their_names(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"{name}.parquet").write_bytes(table(pictures(3)))
    samples = read(f"{tmp_path}/{{train,test}}-*.parquet", path_column="image")
    assert [sample.split for sample in samples] == ["train"] * 6 + ["test"] * 3
    with pytest.raises(DataError, match=r"data\.file=.*none-\*\.parquet: no file is named .*none-"):
        read(f"{tmp_path}/none-*.parquet")


def test_a_table_at_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    content = table(pictures(3))
    fsspec.filesystem("memory").pipe("/tables/t.parquet", content)
    with serving({"t.parquet": content}) as url:
        for file in ("memory://tables/t.parquet", f"{url}/t.parquet"):
            samples = read(file, path_column="image")
            assert samples[0].path == f"{file}/0000001"
            assert [colour_of(sample) for sample in samples] == list(COLOURS)
    monkeypatch.setattr(parquet_table, "MAX_GROUP_BYTES", 1)
    with pytest.raises(DataError, match=r"^memory://\S+: its images have to .* Set data\.root to a folder"):
        read("memory://tables/t.parquet", path_column="image")


def test_a_table_at_a_url_is_written_to_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_table, "MAX_GROUP_BYTES", 1)
    fsspec.filesystem("memory").pipe("/tables/large.parquet", table(pictures(3)))
    samples = read("memory://tables/large.parquet", path_column="image", root=str(tmp_path))
    assert [colour_of(sample) for sample in samples] == list(COLOURS)
    assert Path(samples[0].path).parent.parent == tmp_path


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://tables/none.parquet", r"memory://tables/none\.parquet.*(no such file|cannot be read)"),
        ("memory://tables/t.csv", r"of tables at URLs only \.parquet is read\. Download it"),
    ],
)
def test_tables_at_urls_that_cannot_be_read(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(url)


def test_images_at_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/photos/b/1.png", png("green", 1))
    with serving({"0.png": png("red", 0)}) as url:
        (tmp_path / "t.csv").write_text(f"path,label\n{url}/0.png,red\nmemory://photos/b/1.png,green\n")
        samples = read(tmp_path / "t.csv")
        assert [colour_of(sample) for sample in samples] == ["red", "green"]
    (tmp_path / "u.csv").write_text("path,label\nb\\1.png,green\n")
    [sample] = read(tmp_path / "u.csv", root="memory://photos/")
    assert (sample.path, colour_of(sample)) == ("memory://photos/b/1.png", "green")
    (tmp_path / "u.csv").write_text("path,label\nb/../../1.png,green\n")
    with pytest.raises(DataError, match=r"u\.csv, line 2: b/\.\./\.\./1\.png is not inside data\.root=memory://photos"):
        read(tmp_path / "u.csv", root="memory://photos")


def test_a_url_listed_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,label\nmemory://a/1.png,x\nmemory://a/1.png,x\n")
    with pytest.raises(DataError, match=r"line 3: memory://a/1\.png is listed twice, first in .*line 2"):
        read(tmp_path / "t.csv")


def test_the_splits_of_a_run_on_shards_and_on_a_table_are_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", count=1, images=6)
    (tmp_path / "t.parquet").write_bytes(table(pictures(6)))
    fsspec.filesystem("memory").pipe("/again/a.tar", (tmp_path / "shards" / "part-000.tar").read_bytes())
    from ftexp.config import WebDatasetConfig

    shards = [
        read_webdataset(WebDatasetConfig(source="webdataset", shards=pattern, index=None))
        for pattern in ("shards", "memory://again/a.tar")
    ]
    for samples in (*shards, read("t.parquet", path_column="image")):
        assigned = [
            Sample(s.path, s.label, "train" if number < 3 else "val", place=s.place) for number, s in enumerate(samples)
        ]
        write_splits(Path("splits.csv"), build_splits(assigned))
        again = read("splits.csv", root=".", split_column="split")
        assert [(s.path, s.label, s.split, s.place) for s in again] == [
            (s.path, s.label, s.split, s.place) for s in assigned
        ]
    with open("splits.csv", "a", newline="") as file:
        csv.writer(file).writerow(["shards/part-000.tar/none.png", "red", "val", "", ""])
    with pytest.raises(DataError, match=r"line 8: shards/part-000\.tar has no image none\.png"):
        read("splits.csv", root=".", split_column="split")


def test_the_footer_of_a_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(table(pictures(6)))
    samples = read(tmp_path / "t.parquet", path_column="image")
    footers: list[bool] = []
    opened = parquet_cells.opened_parquet
    monkeypatch.setattr(
        parquet_cells, "opened_parquet", lambda path, footer: (footers.append(footer is None), opened(path, footer))[1]
    )
    assert [colour_of(sample) for sample in samples] == [sample.label for sample in samples]
    assert footers == [True, False, False]
