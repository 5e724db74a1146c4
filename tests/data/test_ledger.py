from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ftexp.data.ledger import TestLedger
from ftexp.errors import DataError


@pytest.fixture
def ledger(tmp_path: Path) -> TestLedger:
    return TestLedger(tmp_path / "test_ledger.sqlite")


def test_counts_by_test_set(ledger: TestLedger) -> None:
    assert ledger.uses("digits") == []
    use = ledger.record_opening("digits", "outputs/1")
    ledger.record_opening("digits", "outputs/2")
    ledger.record_opening("birds", "outputs/3")
    ledger.record_score(use, 0.75)
    assert [(use.run, use.accuracy) for use in ledger.uses("digits")] == [("outputs/1", 0.75), ("outputs/2", None)]
    assert len(ledger.uses("birds")) == 1


def test_max_uses(ledger: TestLedger) -> None:
    ledger.check("digits", 1)
    ledger.record_opening("digits", "outputs/1")
    ledger.check("digits", None)
    ledger.check("digits", 2)
    with pytest.raises(DataError, match=r"(?s)used 1 times, and test\.max_uses=1:.*outputs/1.*raise test\.max_uses"):
        ledger.check("digits", 1)
    ledger.check("birds", 1)


def test_many_at_once(ledger: TestLedger) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: ledger.record_opening("digits", str(number)), range(40)))
    assert len(set(ids)) == len(ledger.uses("digits")) == 40
