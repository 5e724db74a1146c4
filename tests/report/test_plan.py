from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_phase
from matplotlib.figure import Figure

from ftexp.finetune.schedules import Span
from ftexp.models.blocks import Network
from ftexp.report.plan import plan_rows, plot_plan


def test_phases_whose_epochs_differ_in_length_have_their_own_steps(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where only the second one leaves out a last batch: 6 and 5 updates in each of 2 and 3 epochs."""
    phases = [replace(make_phase("head"), epochs=2), replace(make_phase("body", "head"), epochs=3)]
    spans = [Span(2, 6, 41), Span(3, 5, 41)]
    assert [row["steps"] for row in plan_rows(phases, network, spans)] == [12, 15]

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    plot_plan(phases, network, spans, tmp_path / "plan.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlim() == (0, 27)
    assert drawn[0].get_layout_engine() is None  # which would take as long as all else
    head = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) > 2]
    assert [(min(steps), max(steps)) for steps in head] == [(0, 11), (12, 26), (12, 26)]
