from __future__ import annotations

import numpy as np
import pytest

from ftexp.data.samples import Sample
from ftexp.data.splitting.times import times_of
from ftexp.errors import DataError


def at(*times: str | None) -> list[Sample]:
    return [Sample(f"{number}.jpg", "a", time=time) for number, time in enumerate(times)]


def test_dates_in_days() -> None:
    days = times_of(at("2020-01-01", "2020-01-02T12:00:00", "2019-12-31 00:00"))
    assert np.allclose(days - days[0], [0, 1.5, -1])


def test_zones_are_taken_into_account() -> None:
    early, late = times_of(at("2020-01-01T10:00:00+02:00", "2020-01-01T10:00:00+00:00"))
    assert late - early == pytest.approx(2 / 24)


def test_numbers_in_their_own_unit() -> None:
    assert times_of(at("3", "-1.5")).tolist() == [3, -1.5]


def test_dates_without_hyphens_are_dates_if_all_are_such() -> None:
    assert np.diff(times_of(at("20240131", "20240201", "20240301"))).tolist() == [1, 29]
    for other in ("3", "20241301", "20240230", "30240131", "20240131.5"):
        assert times_of(at("20240131", other)).tolist() == [20240131, float(other)]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2020-01-01", None], r"1\.jpg has no time"),
        (["yesterday"], r"0\.jpg: time 'yesterday' is neither a number nor an ISO 8601 date"),
        (["nan"], "'nan' is neither"),
        (["2020-01-01", "20200102"], r"different kinds.*date without a time zone: 2020-01-01 .*number: 20200102"),
        (["2020-01-01", "5"], r"different kinds.*date without a time zone: 2020-01-01 .*number: 5"),
        (["2020-01-01T00:00", "2020-01-01T00:00Z"], "with a time zone.*without a time zone"),
    ],
)
def test_mistakes(times: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        times_of(at(*times))
