"""The curves of a run: what is diagnosed of the phase that is trained, and what is told once."""

from __future__ import annotations

import math
from dataclasses import replace

from conftest import make_phase

from ftexp.evaluation.diagnosis import Setting
from ftexp.evaluation.history import EpochRecord
from ftexp.report.curves import Curves

SETTING = Setting(metric="accuracy", num_val=400, chance_loss=math.log(4), start_loss=math.log(4), chance_accuracy=0.25)
PHASE = replace(make_phase("fc"), name="p")


def epochs(phase: str = "p") -> list[EpochRecord]:
    """Of a phase that overfits from its third epoch on."""
    losses = zip([1.2, 0.6, 0.3, 0.1, 0.05], [1.0, 0.6, 0.7, 0.8, 0.9], [0.6, 0.8, 0.79, 0.76, 0.75], strict=True)
    return [
        EpochRecord(phase, i, train, val, {"accuracy": right}, 1.0, 0.5, 1e-3, None, 1.0, 1.0, best=False)
        for i, (train, val, right) in enumerate(losses, 1)
    ]


def test_a_finding_is_returned_when_it_is_new() -> None:
    curves = Curves(SETTING)
    curves.start_phase(PHASE)
    found = [finding.signal for epoch in epochs() if (finding := curves.add(epoch)) is not None]
    assert found == ["overfitting"]
    assert curves.records == epochs()


def test_a_resumed_phase_is_diagnosed_at_once_and_tells_nothing_twice() -> None:
    *before, last = epochs()
    curves = Curves(SETTING, before)
    curves.start_phase(PHASE)
    assert curves.diagnosis is not None
    assert curves.diagnosis.signal == "overfitting"
    assert curves.add(last) is None


def test_the_phase_before_does_not_count() -> None:
    curves = Curves(SETTING, epochs("before"))
    curves.start_phase(PHASE)
    assert curves.diagnosis is None
    curves.add(epochs()[0])
    assert curves.diagnosis.signal == "too early to say"
    assert curves.of("p") == epochs()[:1]


def test_a_head_counts_as_solved_if_it_is_solved_whatever_was_planned() -> None:
    for solved, signal in ((True, "solved"), (False, "too early to say")):
        curves = Curves(SETTING)
        curves.start_phase(replace(PHASE, solved=solved))
        assert curves.add(epochs()[0]) is None
        assert curves.diagnosis is not None
        assert curves.diagnosis.signal == signal
