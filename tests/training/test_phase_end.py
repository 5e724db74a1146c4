from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ftexp.training.phase_end import log_time_ahead
from ftexp.training.phase_state import PhaseState


@pytest.mark.parametrize(
    ("epochs_done", "seconds", "max_minutes", "told"),
    [
        (2, 20.0, None, "time    all: 28 more epochs take about 9 minutes; train.max_minutes sets a limit"),
        (1, 20.0, None, None),  # the first epoch says little
        (3, 20.0, None, None),  # it was said
        (2, 4.2, None, None),  # 28 epochs of 4.2 s are less than two minutes
        (2, 20.0, 5.0, None),  # the plan for the limit tells how long it takes
    ],
)
def test_a_long_phase_says_how_long_it_takes(
    caplog: pytest.LogCaptureFixture, epochs_done: int, seconds: float, max_minutes: float | None, told: str | None
) -> None:
    caplog.set_level("INFO")
    config: Any = SimpleNamespace(train=SimpleNamespace(max_minutes=max_minutes))
    phase: Any = SimpleNamespace(name="all")
    state = cast(PhaseState, SimpleNamespace(epochs_done=epochs_done, epochs_of=lambda _: 30))
    log_time_ahead(config, phase, state, seconds)
    assert caplog.messages == ([] if told is None else [told])
