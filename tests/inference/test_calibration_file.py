"""``calibration.json`` is used with the checkpoint that it was made for, and with no other."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftexp.errors import CheckpointError, FormatError
from ftexp.inference.calibration import (
    AbstainRule,
    Calibration,
    SetRule,
    checkpoint_digest,
    read_calibration,
    threshold_of,
)

FIGURES = {"log_loss": 0.5, "ece": 0.1, "adaptive_ece": 0.1}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "best.pt"
    file.write_bytes(b"weights")
    return file


def calibration(checkpoint: Path, **changes: Any) -> Calibration:
    made = Calibration(checkpoint_digest(checkpoint), 50, 1.5, FIGURES, FIGURES)
    return replace(made, **changes)


def test_it_is_read_as_it_was_written(checkpoint: Path) -> None:
    made = calibration(
        checkpoint, sets=SetRule("aps", 0.9, 0.95, 0.92, 1.4), abstain=AbstainRule(0.99, 0.8, 0.7, 0.985)
    )
    assert made.write(checkpoint) == checkpoint.with_name("calibration.json")
    assert read_calibration(checkpoint) == made
    assert threshold_of(made, "best.pt") == 0.8


def test_without_an_answer_the_accuracy_that_was_reached_is_no_number(checkpoint: Path) -> None:
    calibration(checkpoint, abstain=AbstainRule(0.99, 0.8, 0.0, math.nan)).write(checkpoint)
    read = read_calibration(checkpoint)
    assert read is not None
    assert read.abstain is not None
    assert math.isnan(read.abstain.reached_accuracy)


def test_sets_are_those_of_the_rule() -> None:
    rule = SetRule("lac", 0.9, 0.75, 0.9, 1.5)
    assert rule.of(np.float32([[0.5, 0.3, 0.2]])).tolist() == [[True, True, False]]


def test_another_checkpoint_is_not_calibrated_by_it(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibration(checkpoint).write(checkpoint)
    checkpoint.write_bytes(b"other weights")
    assert read_calibration(checkpoint) is None
    (message,) = caplog.messages
    assert "calibration.json belongs to another checkpoint than best.pt and is not used" in message


def test_a_missing_threshold_names_the_command(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"best\.pt was not calibrated\. .*ftexp\.calibrate RUN --accuracy"):
        threshold_of(None, "best.pt")
    with pytest.raises(CheckpointError, match=r"best\.pt has no threshold for abstaining"):
        threshold_of(calibration(checkpoint), "best.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, r"calibration\.json has format 2.*Update ftexp"),
        ({"temperature": -1.0}, r"calibration\.json.*temperature -1"),
        ({"sets": {"method": "raps"}}, r"calibration\.json has other fields"),
        ({"more": 1}, r"calibration\.json has other fields.*more"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(checkpoint: Path, change: dict[str, object], message: str) -> None:
    file = calibration(checkpoint).write(checkpoint)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(FormatError, match=message):
        read_calibration(checkpoint)
