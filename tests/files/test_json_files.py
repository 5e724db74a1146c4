from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import Compose

from ftexp.config import as_data
from ftexp.errors import CheckpointError
from ftexp.files.json_files import read_json, write_json


def read_strictly(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_numbers_that_json_does_not_know_are_null_however_deep(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [1.5, (math.inf, {"c": -math.inf})], "d": "NaN", "e": None, "f": True, "ä": 3}
    write_json(tmp_path / "x.json", content)
    assert read_strictly(tmp_path / "x.json") == {
        "a": None, "b": [1.5, [None, {"c": None}]], "d": "NaN", "e": None, "f": True, "ä": 3,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_an_infinite_setting_is_a_word_and_not_the_null_that_means_something_else(
    configure: Compose, tmp_path: Path
) -> None:
    config = configure("train.clip_norm=inf", "data.max_file_mib=inf")
    write_json(tmp_path / "x.json", as_data(config))
    written = read_strictly(tmp_path / "x.json")
    assert written == json.loads(json.dumps(as_data(config))), "a resumed run compares its settings with these"
    assert written["train"]["clip_norm"] == written["data"]["max_file_mib"] == "inf"


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[1]", b"null", b"[" * 100_000])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"result\.json is damaged"):
        read_json(file)


def test_a_file_that_cannot_be_written_or_read_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.mkdir()
    with pytest.raises(OSError, match=r"'.*/result\.json'"):
        write_json(file, {"a": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(CheckpointError, match=r"result\.json is damaged or cannot be read: .*Is a directory"):
        read_json(file)
