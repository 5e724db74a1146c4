from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import Compose

from ftexp.config import as_data
from ftexp.json_files import write_json


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
