from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftexp.data.splitting.test_ledger import TestLedger
from ftexp.errors import DataError


@pytest.fixture
def ledger(tmp_path: Path) -> TestLedger:
    return TestLedger(tmp_path / "test_ledger.sqlite")


def test_counts_by_test_set(ledger: TestLedger) -> None:
    assert ledger.uses("digits") == []
    use = ledger.record_use("digits", "outputs/1")
    ledger.record_use("digits", "outputs/2")
    ledger.record_use("birds", "outputs/3")
    ledger.record_score(use, 0.75)
    assert [(use.run, use.accuracy) for use in ledger.uses("digits")] == [("outputs/1", 0.75), ("outputs/2", None)]
    assert len(ledger.uses("birds")) == 1


def test_max_uses(ledger: TestLedger) -> None:
    ledger.check("digits", 1)
    ledger.record_use("digits", "outputs/1")
    ledger.check("digits", None)
    ledger.check("digits", 2)
    with pytest.raises(DataError, match=r"(?s)used once, and test\.max_uses=1:.*outputs/1.*raise test\.max_uses"):
        ledger.check("digits", 1)
    ledger.check("birds", 1)


def test_many_at_once(ledger: TestLedger) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: ledger.record_use("digits", str(number)), range(40)))
    assert len(set(ids)) == len(ledger.uses("digits")) == 40


@pytest.mark.parametrize("fault", ["folder", "garbage", "another table", "below a file"])
def test_an_unusable_ledger_is_one_message_before_training(tmp_path: Path, fault: str) -> None:
    file = tmp_path / "test_ledger.sqlite"
    if fault == "folder":
        file.mkdir()
    elif fault == "garbage":
        file.write_bytes(b"no database" * 500)
    elif fault == "another table":
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE uses (name TEXT)")
    else:
        file.touch()
        file = file / "test_ledger.sqlite"
    message = rf"{file}, which counts how often .* cannot be used: .* move it away .* tracking\.uri=sqlite:///FOLDER"
    with pytest.raises(DataError, match=message):
        TestLedger(file).check("digits", None)


def test_a_read_only_ledger_is_one_message_before_training(ledger: TestLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.check("digits", None)
    original = sqlite3.connect

    def read_only(file: Path, **options: float) -> sqlite3.Connection:
        return original(f"file:{file}?mode=ro", uri=True, **options)

    monkeypatch.setattr("ftexp.data.splitting.test_ledger.sqlite3.connect", read_only)
    assert ledger.uses("digits") == []
    with pytest.raises(DataError, match="attempt to write a readonly database"):
        ledger.check("digits", None)
