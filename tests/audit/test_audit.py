from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
from photographs import photograph, save

from ftexp.audit.audit import Audit, audit_splits, screen_and_look
from ftexp.audit.fingerprint_table import FingerprintsByPath
from ftexp.audit.ties import join, split_tied
from ftexp.config import AuditConfig, DataConfig
from ftexp.data.samples import Sample, SampleTable
from ftexp.errors import DataError, LeakError


def config(on_leak: str = "fail", cache: Path | None = None) -> AuditConfig:
    return AuditConfig(
        on_leak=on_leak, features=False, geometry=False, on_scene="warn", cache=None if cache is None else str(cache)
    )


def look(samples: list[Sample], settings: AuditConfig, folder: Path) -> FingerprintsByPath:
    good, seen = screen_and_look(samples, DataConfig(source="imagefolder"), settings, folder, None)
    assert [sample.path for sample in good] == [sample.path for sample in samples]
    return seen


def audit(samples: list[Sample], settings: AuditConfig, folder: Path) -> Audit:
    return audit_splits(samples, settings, folder, look(samples, settings, folder))


@pytest.fixture
def leaky(tmp_path: Path) -> list[Sample]:
    clean = [save(tmp_path, f"{seed}.png", photograph(seed), "train" if seed % 2 else "val") for seed in range(10)]
    copy = save(tmp_path, "copy.jpg", photograph(1), "test", quality=50)
    same = save(tmp_path, "same.bmp", photograph(3), "test")
    return [*clean, copy, same]


def test_a_leak_stops_the_run_and_is_written_down(leaky: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(
        LeakError, match=r"(?s)1 x the same image.*1 x nearly the same.*leaks\.csv.*data\.tie_duplicates=true"
    ) as raised:
        audit(leaky, config(), tmp_path)
    assert isinstance(raised.value, DataError)
    assert str(raised.value).splitlines()[1:] == [
        "For the same image in two splits and nearly the same image in two splits, set data.tie_duplicates=true (with "
        "data.split=stratified if the data has splits of its own). Or train anyway with audit.on_leak=warn."
    ]
    with (tmp_path / "leaks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["kind", "severity", "split_a", "path_a", "split_b", "path_b", "score", "inliers"]
    assert [(r["kind"], r["severity"], Path(r["path_a"]).name, Path(r["path_b"]).name) for r in rows] == [
        ("same_image", "fail", "3.png", "same.bmp"),
        ("near_duplicate", "fail", "1.png", "copy.jpg"),
    ]
    assert (tmp_path / "leaks.png").stat().st_size > 10_000


def test_on_leak_warn_logs_the_leaks_and_continues(
    leaky: list[Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = audit(leaky, config("warn"), tmp_path)
    assert {finding.severity for finding in result.findings} == {"warn"}
    assert "nearly the same image in two splits: 1, for example" in caplog.text


def test_clean_data_leave_an_empty_table_and_no_picture(leaky: list[Sample], tmp_path: Path) -> None:
    result = audit(leaky[:10], config(), tmp_path)
    assert result.findings == []
    assert result.seconds > 0
    assert (tmp_path / "leaks.csv").read_text().splitlines() == [
        "kind,severity,split_a,path_a,split_b,path_b,score,inliers"
    ]
    assert not (tmp_path / "leaks.png").exists()


def test_shortcuts_only_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [
        save(tmp_path, f"{'ab'[seed % 2]}_{seed:03d}.png", photograph(seed), "train", "ab"[seed % 2])
        for seed in range(60)
    ]
    result = audit(samples, config(), tmp_path)
    assert {(f.kind, f.severity, f.path_a) for f in result.findings} >= {("shortcut", "warn", "file name")}
    assert "can be predicted from the file name alone" in caplog.text


def test_ties_by_path(leaky: list[Sample], tmp_path: Path) -> None:
    ties = split_tied(leaky, config(), look(leaky, config(), tmp_path), lambda _: SampleTable.of(leaky)).sets
    assert {Path(path).name for path in ties} == {"1.png", "copy.jpg", "3.png", "same.bmp"}


def test_sets_are_joined_by_pairs() -> None:
    joined = join({"a": "1", "b": "1", "c": "2", "d": "2", "e": "3"}, [("b", "f"), ("g", "h"), ("f", "d")])
    sets = {frozenset(path for path in joined if joined[path] == name) for name in joined.values()}
    assert sets == {frozenset("abcdf"), frozenset("e"), frozenset("gh")}


def test_the_cache_changes_nothing(leaky: list[Sample], tmp_path: Path) -> None:
    cached = config("warn", tmp_path / "folder" / "cache.sqlite")
    first, second = (audit(leaky, cached, tmp_path).findings for _ in range(2))
    assert first == second == audit(leaky, config("warn"), tmp_path).findings
    assert (tmp_path / "folder" / "cache.sqlite").exists()
