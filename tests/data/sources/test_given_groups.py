from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ftexp.config import DataConfig
from ftexp.data.samples import Sample, SampleTable
from ftexp.data.sources.given_groups import with_groups
from ftexp.data.splitting.splits import assign_splits
from ftexp.errors import ConfigError, DataError


@pytest.fixture
def samples() -> SampleTable:
    return SampleTable.of(Sample(f"{number:02d}.png", "ab"[number % 2]) for number in range(40))


def table(folder: Path, rows: str) -> Path:
    (folder / "groups.csv").write_text(f"path,group\n{rows}")
    return folder / "groups.csv"


def test_the_images_of_a_group_stay_in_one_split(samples: SampleTable, tmp_path: Path) -> None:
    file = table(tmp_path, "".join(f"{number:02d}.png,{number // 4}\n" for number in range(32)))
    grouped = with_groups(samples, file)
    assert [one.group for one in grouped[::5]] == ["0", "1", "2", "3", "5", "6", "7", "35.png"]
    for split in ("auto", "stratified", "group"):
        config = DataConfig(source="imagefolder", split=split, groups=str(file))
        split_of = {one.path: one.split for one in assign_splits(grouped, config)}
        assert set(split_of.values()) == {"train", "val", "test"}
        assert all(len({split_of[f"{4 * group + member:02d}.png"] for member in range(4)}) == 1 for group in range(8))


def test_tables_that_do_not_fit(samples: SampleTable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"data\.groups=.*nosuch\.csv: there is no such file"):
        with_groups(samples, tmp_path / "nosuch.csv")
    with pytest.raises(DataError, match=r"none of its 2 paths is an image of the data, for example x/00\.png"):
        with_groups(samples, table(tmp_path, "x/00.png,1\nx/01.png,1\n"))
    with pytest.raises(DataError, match=r"line 3: 00\.png has two groups, 1 and 2"):
        with_groups(samples, table(tmp_path, "00.png,1\n00.png,2\n"))
    with pytest.raises(DataError, match="groups of its own"):
        with_groups(SampleTable.of([Sample("00.png", "a", group="x")]), table(tmp_path, "00.png,1\n"))
    with caplog.at_level(logging.WARNING):
        with_groups(samples, table(tmp_path, "00.png,1\ngone.png,1\n"))
    assert "1 of its paths are not in the data: gone.png" in caplog.text
    with pytest.raises(ConfigError, match="leave one of them out"):
        DataConfig(source="imagefolder", split="time", groups="groups.csv")
