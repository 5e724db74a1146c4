from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import unicodedata
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ftexp.config import ManifestConfig
from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.data.sources import parquet_table
from ftexp.data.sources.manifest import read_manifest
from ftexp.data.sources.written_images import MARK
from ftexp.errors import DataError

GOOD = "path,label\nimages/1.jpg,cat\nimages/2.jpg,dog\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/1.jpg", "images/2.jpg", "images/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path


def read(folder: Path, text: str | bytes, **settings_: str) -> list[Sample]:
    file = folder / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_manifest(ManifestConfig(source="manifest", file=str(file), **settings_))


def test_paths_start_from_the_tables_folder(folder: Path) -> None:
    samples = read(folder, GOOD)
    assert [(s.path, s.label) for s in samples] == [
        (str(folder / "images/1.jpg"), "cat"),
        (str(folder / "images/2.jpg"), "dog"),
    ]
    assert samples[0].split is samples[0].group is samples[0].time is None


def test_root_and_absolute_paths(folder: Path) -> None:
    text = f"path,label\n1.jpg,a\n{folder}/images/2.jpg,b\n"
    samples = read(folder, text, root=str(folder / "images"))
    assert [Path(s.path).name for s in samples] == ["1.jpg", "2.jpg"]


def test_named_columns_in_any_order_with_a_byte_order_mark(folder: Path) -> None:
    text = '\ufeffwhen,file,who,class,part,x\n2020-01-02,images/1.jpg,ann,"a, b",train,\n,images/2.jpg,,c,val,9\n'
    columns = {"path_column": "file", "label_column": "class", "group_column": "who", "time_column": "when"}
    first, second = read(folder, text, split_column="part", **columns)
    assert (first.label, first.group, first.time, first.split) == ("a, b", "ann", "2020-01-02", "train")
    assert (second.label, second.group, second.time, second.split) == ("c", None, None, "val")


WINDOWS = "path , label\r\n\r\n images\\1.jpg , cat\r\nimages\\2.jpg,dog \r\n,\r\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", "|"),
        "sep=;\n" + GOOD.replace(",", ";"),
        '"sep=\t"\r\n' + GOOD.replace(",", "\t"),
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\n\n" + GOOD + "\n \n",
        ",path,label\n0,images/1.jpg,cat\n1,images/2.jpg,dog\n",
        '" path", "label"\n"images/1.jpg", "cat"\n./images/2.jpg,  "dog"\n',
        "path,note,label\nimages/1.jpg,a;b;c,cat\nimages/2.jpg,;;,dog\n",
        WINDOWS,
        "\ufeff" + GOOD,
        GOOD.encode("utf-16"),
        GOOD.encode("utf-16-le"),
        GOOD.encode("utf-16-be"),
        b"\xfe\xff" + GOOD.encode("utf-16-be"),
        GOOD.encode("utf-32"),
        ("\ufeff" + GOOD.replace(",", ";")).encode("utf-16-le"),
    ],
)
def test_tables_as_programs_write_them(folder: Path, text: str | bytes) -> None:
    samples = read(folder, text)
    assert [(Path(s.path).name, s.label) for s in samples] == [("1.jpg", "cat"), ("2.jpg", "dog")]


def test_the_line_is_right_after_a_declared_delimiter_and_empty_lines(folder: Path) -> None:
    with pytest.raises(DataError, match=r"table\.csv, line 5: no label"):
        read(folder, "\nsep=;\npath;label\nimages/1.jpg;cat\nimages/2.jpg;\n")


@pytest.mark.parametrize("suffix", [".tsv", ".TXT", ".tab"])
def test_other_names_of_text_tables(folder: Path, suffix: str) -> None:
    (folder / f"t{suffix}").write_text(GOOD.replace(",", "\t"))
    assert len(read_manifest(ManifestConfig(source="manifest", file=str(folder / f"t{suffix}")))) == 2


def test_a_path_in_the_other_unicode_form(folder: Path) -> None:
    name = "caf\u00e9.jpg"
    (folder / unicodedata.normalize("NFD", name)).write_bytes(b"x")
    (sample,) = read(folder, f"path,label\n{name},a\n")
    assert Path(sample.path).is_file()


def test_a_path_from_the_working_folder_is_recognised(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "tables").mkdir()
    (folder / "tables" / "t.csv").write_text(GOOD)
    with pytest.raises(DataError, match=r"is valid from the working folder: set data\.root=\."):
        read_manifest(ManifestConfig(source="manifest", file="tables/t.csv"))
    assert len(read_manifest(ManifestConfig(source="manifest", file="tables/t.csv", root="."))) == 2


def test_usual_names_of_splits(folder: Path) -> None:
    text = "path,label,s\nimages/1.jpg,a,TRAIN\nimages/2.jpg,a,validation\nimages/3.jpg,a,Testing\n"
    assert [s.split for s in read(folder, text, split_column="s")] == ["train", "val", "test"]


def labelled(labels: list[str]) -> str:
    return "path,label\n" + "".join(f'images/{number}.jpg,"{label}"\n' for number, label in enumerate(labels, 1))


@pytest.mark.parametrize(
    "labels",
    [
        ["cat|dog", "cat", "dog"],
        ["cat|dog", "bird", "bird"],
        ["cat|dog", "dog|bird", "bird|cat"],
        ["cat;dog", "cat", "dog"],
        ["cat, dog", "cat", "dog"],
        ["['cat', 'dog']", "['cat']", "[]"],
        ["[0 1 1]", "[0 0 1]", "[1 0 0]"],
        ["{cat}", "cat", "dog"],
    ],
)
def test_several_labels_an_image_are_refused(folder: Path, labels: list[str]) -> None:
    with pytest.raises(DataError, match=r"column 'label': the label .* names several classes\. .*not supported"):
        read(folder, labelled(labels))


@pytest.mark.parametrize(
    "labels", [["n01|tench", "n02|shark", "n03|ray"], ["red, fox", "fox", "cat"], ["a,b=c", "plain", "a;b"]]
)
def test_one_label_with_a_separator_in_it_is_a_name(folder: Path, labels: list[str]) -> None:
    assert [s.label for s in read(folder, labelled(labels))] == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv is empty; its first line must name the columns"),
        ("path,label\n", "has columns but no rows"),
        ("path,lable\nimages/1.jpg,a\n", r"no column 'label'\. Did you mean 'lable'\? It has: 'path', 'lable'"),
        ("path,label,label\nimages/1.jpg,a,b\n", "2 columns called 'label'"),
        ("images/1.jpg,a\n", r"has no column 'path'\..* It has: 'images/1\.jpg', 'a'\."),
        ("path label\nimages/1.jpg a\n", "has no column 'path'"),
        ("path,label,path \nimages/1.jpg,a,b\n", "2 columns called 'path'"),
        (GOOD + "7,images/3.jpg,cat\n", r"line 4: 3 values, but .* 2 columns\. Quote values .* name an index column"),
        (GOOD + "images/3.jpg,\n", r"line 4: no label \(column 'label' is empty\)"),
        (GOOD + " ,cat\n", "line 4: no path"),
        (GOOD + "images/3.jpg\n", "line 4: 1 values, but the header names 2 columns"),
        (GOOD + "images/9.jpg,cat\n", r"line 4: there is no file .*images/9\.jpg"),
        (GOOD + "images,cat\n", "line 4: .*images is a folder; list the images in it"),
        (GOOD + "/dev/null,cat\n", "line 4: /dev/null is outside"),
        (GOOD + "pipe.jpg,cat\n", r"line 4: .*pipe\.jpg is not a regular file but a pipe"),
        (
            GOOD + "C:\\images\\3.jpg,cat\n",
            r"line 4: C:\\images\\3\.jpg is an absolute path of Windows",
        ),
        (GOOD + "\\\\server\\3.jpg,cat\n", r"line 4: \\\\server.* is an absolute path of Windows"),
        (
            GOOD + "images/3,cat\n",
            r"there is no file .*/images/3 .* There is 3\.jpg: list the names with their suffix\.",
        ),
        (GOOD + "images/3.JPG,cat\n", r"There is 3\.jpg: write the name with the same upper and lower case\."),
        (
            "images/1.jpg,cat\nimages/2.jpg,dog\n",
            "no column 'path'. Its first line must name the columns, but it seems",
        ),
        (
            "path label\nimages/1.jpg cat\n",
            "no column 'path'. Its columns must be separated by one of comma, semicolon",
        ),
        ('"path" "label"\n"a" "b"\n', "line 1: .* Values must be separated by one of comma, semicolon, tab and bar"),
        (GOOD + "..\\3.jpg,cat\n", r"line 4: \.\.\/3\.jpg is outside"),
        (GOOD + "images/1.jpg,dog\n", r"line 4: .* listed twice, .*Their labels differ\. Several labels for an image"),
        (
            GOOD + "images/3.jpg," + "x" * 5000 + "\n",
            r"line 4: .*xxx\.\.\. \(5,000 characters\), .*too long for a label",
        ),
        (GOOD + "images/../images/1.jpg,cat\n", r"line 4: .* is listed twice, first in .*table\.csv, line 2"),
        (GOOD + "images/2.jpg,dog\n", r"line 4: .*2\.jpg is listed twice, first in .*table\.csv, line 3\. Keep one"),
        (GOOD + "../secret.jpg,cat\n", r"line 4: \.\./secret\.jpg is outside"),
        (GOOD + "/etc/passwd,cat\n", "line 4: /etc/passwd is outside"),
        (GOOD + '"images/3.jpg","a\nb"\n', "contains 'a\\\\nb', which has unprintable characters"),
        (GOOD + "images/3\0.jpg,cat\n", "line 4"),
        (GOOD + '"images/3.jpg,cat\n', "line 4: unexpected end of data"),
        (GOOD + "x" * 5000 + ",cat\n", "line 4: xxxx.*File name too long"),
        (GOOD.encode("utf-16")[:-1], "is not UTF-8 text"),
        (GOOD.encode() + b"images/3.jpg,\xff\n", "is not UTF-8 text"),
    ],
)
def test_mistakes_are_named_with_their_line(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, text)


def test_unknown_split_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(DataError, match=r"split 'nan' \(column 's'\) is not one of train, val, test\.$"):
        read(folder, "path,label,s\nimages/1.jpg,a,nan\n", split_column="s")
    with pytest.raises(DataError, match=r"line 2: split 'trian' \(column 's'\) is not one of.*Did you mean 'train'\?"):
        read(folder, "path,label,s\nimages/1.jpg,a,trian\n", split_column="s")


def test_missing_table_wrong_ending_and_missing_root(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.file=gone\.csv does not exist"):
        read_manifest(ManifestConfig(source="manifest", file="gone.csv"))
    (folder / "table.dat").write_bytes(b"x")
    with pytest.raises(DataError, match=r"must end in \.csv, \.tsv or \.parquet"):
        read_manifest(ManifestConfig(source="manifest", file=str(folder / "table.dat")))
    with pytest.raises(DataError, match=r"data\.root=nowhere is not a folder"):
        read(folder, GOOD, root="nowhere")


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("table.xlsx", b"x", "is a workbook of Excel; save the sheet as CSV"),
        ("table.csv", b"PK\x03\x04\x14\0", "is a workbook of Excel, or a ZIP archive; save the sheet as CSV"),
        ("table.csv", b"\xd0\xcf\x11\xe0\xa1", "is a workbook of Excel"),
        ("table.csv.gz", b"\x1f\x8b\x08", r"is compressed \(gzip\); unpack it"),
        ("table.csv", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.* run git lfs pull"),
        ("table.parquet", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("table.tsv", b"<!DOCTYPE html><html>", "is a web page"),
        ("table.jsonl", b"", "is JSON; write it as a table once: pandas.read_json"),
        ("table.csv", b'{"path": "images/1.jpg"}\n', "is JSON"),
        ("table.csv", b"PAR1\x15", "is a Parquet file; rename it so that its name ends in .parquet"),
        ("table.parquet", b"path,label\n", "is not a Parquet file, or damaged"),
    ],
)
def test_a_file_that_is_not_a_table_is_described(folder: Path, name: str, start: bytes, expected: str) -> None:
    (folder / name).write_bytes(start)
    with pytest.raises(DataError, match=f"^data.file={folder / name} {expected}"):
        read_manifest(ManifestConfig(source="manifest", file=str(folder / name)))


def test_names_that_stand_for_missing_values_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "path,label,who\nimages/1.jpg,NA,nan\nimages/2.jpg,cat,nan\nimages/3.jpg,None,\n"
    assert [sample.label for sample in read(folder, text, group_column="who")] == ["NA", "cat", "None"]
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        f"{count} rows contain {name}, which is used as the name of a {what}. If it means a missing value, remove them."
        for count, name, what in [(1, "'NA'", "class"), (1, "'None'", "class"), (2, "'nan'", "group")]
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_splits_that_are_not_asked_for_are_said(folder: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    table = pd.DataFrame({"path": ["images/1.jpg"], "label": ["a"], "Split": ["test"]})
    file = folder / f"table{suffix}"
    table.to_csv(file) if suffix == ".csv" else table.to_parquet(file)
    for column in (None, "Split"):
        caplog.clear()
        (sample,) = read_manifest(ManifestConfig(source="manifest", file=str(file), split_column=column))
        assert sample.split == (None if column is None else "test")
        said = [f"{file} has a column 'Split', which is not used. To use its splits, set data.split_column=Split."]
        assert caplog.messages == (said if column is None else [])


def test_parquet_with_numbers_dates_and_gaps(folder: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["images/1.jpg", "images/2.jpg", "images/3.jpg"],
            "label": [0, 1, 10],
            "group": [1.0, None, 3.0],
            "time": [datetime(2020, 1, 2, 3, 4, 5), None, None],
        }
    )
    table.to_parquet(folder / "t.parquet")
    config = ManifestConfig(source="manifest", file=str(folder / "t.parquet"), group_column="group", time_column="time")
    samples = read_manifest(config)
    assert [s.label for s in samples] == ["0", "1", "10"]
    assert [s.group for s in samples] == ["1", None, "3"]
    assert samples[0].time == "2020-01-02 03:04:05"
    assert datetime.fromisoformat(samples[0].time) == datetime(2020, 1, 2, 3, 4, 5)
    assert samples[1].time is None


def test_parquet_missing_label_names_the_row(folder: Path) -> None:
    pd.DataFrame({"path": ["images/1.jpg", "images/2.jpg"], "label": ["a", None]}).to_parquet(folder / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 2: no label"):
        read_manifest(ManifestConfig(source="manifest", file=str(folder / "t.parquet")))


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (red, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def parquet(folder: Path, columns: dict[str, object], label_names: list[str] | None = None) -> str:
    features = {"label": {"names": label_names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if label_names else None
    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), folder / "t.parquet")
    return str(folder / "t.parquet")


def test_parquet_with_images_as_the_hub_has_them(folder: Path) -> None:
    (folder / "x.png").write_bytes(png(30))
    images = [{"bytes": png(10), "path": "a.png"}, {"bytes": png(20), "path": None}, {"bytes": None, "path": "x.png"}]
    file = parquet(folder, {"image": images, "label": [1, 0, 1]}, ["cat", "dog"])
    samples = read_manifest(ManifestConfig(source="manifest", file=file, path_column="image"))
    assert [s.label for s in samples] == ["dog", "cat", "dog"]
    assert [open_image(s).getpixel((0, 0)) for s in samples] == [(10, 0, 0), (20, 0, 0), (30, 0, 0)]


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary()])
def test_parquet_with_large_row_groups_is_written_to_files_once(
    folder: Path, kind: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="ftexp")
    monkeypatch.setattr(parquet_table, "MAX_GROUP_BYTES", 1)
    file = parquet(folder, {"path": pyarrow.array([png(10), png(20)], kind), "label": ["a", "b"]})
    config = ManifestConfig(source="manifest", file=file)
    samples = read_manifest(config)
    first = Path(samples[0].path)
    assert [open_image(s).getpixel((0, 0)) for s in samples] == [(10, 0, 0), (20, 0, 0)]
    assert "are written to files in" in caplog.text
    assert first.parent.parent == folder
    assert (first.parent / MARK).exists()  # so that the folder is never taken for a class
    written = first.stat().st_mtime_ns
    assert [s.path for s in read_manifest(config)] == [s.path for s in samples]
    assert first.stat().st_mtime_ns == written
    parquet(folder, {"path": [png(11)], "label": ["a"]})
    assert Path(read_manifest(config)[0].path).parent != first.parent


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [png(1)], "label": ["a"]},
            r"no column 'path'\. Column 'image' contains images: set data\.path_c",
        ),
        ({"path": [png(1)], "label": [png(2)]}, r"row 1: column 'label' contains [0-9]+ bytes that are not text"),
        (
            {"path": ["images/1.jpg"], "label": [["a", "b"]]},
            r"'label' contains lists .*\(multi-label\) are not supported",
        ),
        (
            {"path": ["images/1.jpg"], "label": [{"a": 1}]},
            r"column 'label' contains struct<a: int64>, which cannot be a label",
        ),
        ({"path": [[1, 2, 3]], "label": ["a"]}, r"column 'path' contains list<.*>, which cannot be a path"),
        ({"path": [{"bytes": None, "path": None}], "label": ["a"]}, r"row 1: no path"),
        ({"path": ["x" * 10**6], "label": ["a"]}, r"row 1: xxx.*\(1,000,000 characters\): File name too long"),
    ],
)
def test_parquet_mistakes_are_short(folder: Path, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_manifest(ManifestConfig(source="manifest", file=parquet(folder, columns)))
    assert len(str(raised.value)) < 700


def test_parquet_with_text_that_is_not_marked_as_such(folder: Path) -> None:
    file = parquet(folder, {"path": [b"images/1.jpg"], "label": ["caf\u00e9".encode()]})
    (sample,) = read_manifest(ManifestConfig(source="manifest", file=file))
    assert (Path(sample.path).name, sample.label) == ("1.jpg", "caf\u00e9")


def test_parquet_with_a_class_number_that_has_no_name(folder: Path) -> None:
    file = parquet(folder, {"path": ["images/1.jpg"], "label": [-1]}, ["a"])
    with pytest.raises(DataError, match=r"row 1: class -1 is not one of the 1 classes .* that the table names"):
        read_manifest(ManifestConfig(source="manifest", file=file))


def test_images_of_a_table_need_a_folder_that_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(parquet_table, "MAX_GROUP_BYTES", 1)
    file = parquet(folder, {"path": [png(1)], "label": ["a"]})
    with pytest.raises(DataError, match=r"cannot be written to .*t-[0-9a-f]{8}: No space left on device\. Set data"):
        read_manifest(ManifestConfig(source="manifest", file=file))


def test_parquet_that_is_none(folder: Path) -> None:
    (folder / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_manifest(ManifestConfig(source="manifest", file=str(folder / "t.parquet")))


HOSTILE = st.one_of(
    st.sampled_from(["", "..", "../../etc/passwd", "/", "images/1.jpg", "images", "\0", "NaN", '"', "a,b", "~", "CON"]),
    st.text(max_size=30),
)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_fuzz_random_bytes_give_nothing_but_a_clear_error(ending: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"t.{ending}")
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.|data\.file="):
            read_manifest(ManifestConfig(source="manifest", file=str(file)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(HOSTILE, max_size=4), max_size=5), quoted=st.booleans())
def test_fuzz_hostile_rows_give_samples_inside_the_root_or_a_clear_error(
    folder: Path, rows: list[list[str]], quoted: bool
) -> None:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = ["path,label", *(",".join(map(cell, row)) for row in rows)]
    try:
        samples = read(folder, "\n".join(lines).encode("utf-8", "surrogatepass"))
    except DataError as error:
        samples, message = [], str(error)
    else:
        message = "table.csv"
    assert "table.csv" in message
    assert len(message) < 2000
    assert all(Path(s.path).resolve().is_relative_to(folder.resolve()) and s.label for s in samples)
