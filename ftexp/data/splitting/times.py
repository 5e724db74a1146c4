"""Converts the times of samples to numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from ftexp.data.samples import Sample
from ftexp.errors import DataError

SECONDS_PER_DAY = 86_400
COMPACT_DATE = re.compile(r"(19|20)[0-9]{6}")


def times_of(samples: Sequence[Sample]) -> npt.NDArray[np.float64]:
    """The times of the samples: in days for dates (ISO 8601), in the unit of the column for numbers.

    Numbers such as 20240131 are dates if all times of the samples are such.

    Raises:
        DataError: when a time is missing, when it is neither a date nor a number, or when the kinds are mixed.
    """
    are_dates = all(_is_compact_date(sample.time) for sample in samples)
    parsed = [_parse(sample, is_date=are_dates) for sample in samples]
    kinds = {kind: sample for sample, (kind, _) in zip(samples, parsed, strict=True)}
    if len(kinds) > 1:
        examples = "; ".join(f"{kind}: {sample.time} ({sample.path})" for kind, sample in sorted(kinds.items()))
        raise DataError(f"Times of different kinds cannot be compared: {examples}. Write all of them in one way.")
    return np.array([value for _, value in parsed])


def _is_compact_date(time: str | None) -> bool:
    if time is None or COMPACT_DATE.fullmatch(time) is None:
        return False
    try:
        date.fromisoformat(time)
    except ValueError:
        return False
    return True


def _parse(sample: Sample, *, is_date: bool) -> tuple[str, float]:
    if sample.time is None:
        raise DataError(f"{sample.path} has no time. Give every sample a time, or set data.split=stratified.")
    try:
        number = float(sample.time)
    except ValueError:
        pass
    else:
        if math.isfinite(number) and not is_date:
            return "number", number
    try:
        moment = datetime.fromisoformat(sample.time)
    except ValueError:
        raise DataError(
            f"{sample.path}: time {sample.time!r} is neither a number nor an ISO 8601 date such as 2026-11-22T19:30:00."
        ) from None
    kind = "date without a time zone" if moment.tzinfo is None else "date with a time zone"
    return kind, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() / SECONDS_PER_DAY
