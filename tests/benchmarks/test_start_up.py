"""The table of the start: ratios are of processor seconds, round by round."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pytest

from benchmarks import start_up


def test_the_ratio_is_that_of_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {start_up.TORCH: [(9.0, 9.0), (2.0, 1.0), (4.0, 2.0), (3.0, 2.0)]}
    others = [(9.0, 9.0), (5.0, 3.0), (6.0, 5.0), (7.0, 4.0)]
    left = {command: list(rounds.get(name, others)) for name, (command, _) in start_up.CALLS.items()}

    def seconds(command: Sequence[str], code: int) -> tuple[float, float]:
        return left[tuple(command)].pop(0)

    monkeypatch.setattr(start_up, "seconds_of", seconds)
    alone, run, *_ = start_up.start_up(argparse.Namespace(rounds=3))
    assert alone["times import torch, clock"] == alone["times import torch, processor"] == "1.00 (1.00 to 1.00)"
    assert (run["call"], run["n"]) == ("a run on 24 pictures", 3)
    assert run["seconds"] == "6.00 (5.00 to 7.00)"
    assert run["processor seconds"] == "4.00 (3.00 to 5.00)"
    assert run["times import torch, clock"] == "2.33 (1.50 to 2.50)"
    assert run["times import torch, processor"] == "2.50 (2.00 to 3.00)"


def test_a_process_that_fails_is_not_measured() -> None:
    clock, processor = start_up.seconds_of([sys.executable, "-c", "sum(range(10**6))"], 0)
    assert processor > 0
    assert clock > 0
    with pytest.raises(AssertionError, match="ended with 3"):
        start_up.seconds_of([sys.executable, "-c", "raise SystemExit(3)"], 0)
