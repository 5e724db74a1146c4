from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftexp.config import ManifestConfig
from ftexp.data.manifest import read_manifest
from ftexp.data.samples import Sample
from ftexp.errors import DataError

GOOD = "path,label\nimages/1.jpg,cat\nimages/2.jpg,dog\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/1.jpg", "images/2.jpg", "images/3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"table\.csv is empty; its first line must name the columns"),
        ("path,label\n", "has columns but no rows"),
        ("path,lable\nimages/1.jpg,a\n", r"no column 'label'\. Did you mean 'lable'\? It has: 'path', 'lable'"),
        ("path,label,label\nimages/1.jpg,a,b\n", "2 columns called 'label'"),
        ("path;label\nimages/1.jpg;a\n", "has no column 'path'"),
        (GOOD + "images/3.jpg,\n", r"line 4: no label \(column 'label' is empty\)"),
        (GOOD + " ,cat\n", "line 4: no path"),
        (GOOD + "images/3.jpg\n", "line 4: 1 values, but the header names 2 columns"),
        (GOOD + "images/9.jpg,cat\n", r"line 4: there is no file .*images/9\.jpg"),
        (GOOD + "images,cat\n", "line 4: there is no file"),
        (GOOD + "images/../images/1.jpg,cat\n", r"line 4: .* is listed twice, first in .*table\.csv, line 2"),
        (GOOD + "../secret.jpg,cat\n", r"line 4: \.\./secret\.jpg lies outside"),
        (GOOD + "/etc/passwd,cat\n", "line 4: /etc/passwd lies outside"),
        (GOOD + '"images/3.jpg","a\nb"\n', "holds 'a\\\\nb', with characters that do not print"),
        (GOOD + "images/3\0.jpg,cat\n", "line 4"),
        (GOOD + '"images/3.jpg,cat\n', "line 4: unexpected end of data"),
        (GOOD + "x" * 5000 + ",cat\n", "line 4: xxxx.*File name too long"),
        (GOOD.encode("utf-16"), "is not UTF-8 text"),
        (GOOD.encode() + b"images/3.jpg,\xff\n", "is not UTF-8 text"),
    ],
)
def test_mistakes_are_named_with_their_line(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, text)


def test_unknown_split_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: split 'trian' \(column 's'\) is none of.*Did you mean 'train'\?"):
        read(folder, "path,label,s\nimages/1.jpg,a,trian\n", split_column="s")


def test_missing_table_wrong_ending_and_missing_root(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.file=gone\.csv does not exist"):
        read_manifest(ManifestConfig(source="manifest", file="gone.csv"))
    (folder / "table.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"must end in \.csv or \.parquet"):
        read_manifest(ManifestConfig(source="manifest", file=str(folder / "table.xlsx")))
    with pytest.raises(DataError, match=r"data\.root=nowhere is not a folder"):
        read(folder, GOOD, root="nowhere")


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
