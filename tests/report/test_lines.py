"""The lines of a run, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import scores_of

from ftexp.evaluation.best import Best
from ftexp.evaluation.gate import Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.report.lines import epoch_line, explain_skipped, explain_verdict, result_line

VAL = {"accuracy": 0.75, "macro_f1": 0.5, "cohen_kappa": 0.25}
RECORD = EpochRecord("head", 3, 1.23456, 0.5, VAL, 1.0, 0.0, 0.1, None, 1234.4, 6.54, True)
SCORES = scores_of([0, 0, 1, 1], [0, 0, 1, 0], 2)


def test_an_epoch() -> None:
    assert epoch_line(RECORD, "cohen_kappa", 12) == (
        "head     epoch  3/12  loss 1.2346  val loss 0.5000  accuracy 0.7500  macro F1 0.5000  Cohen's kappa 0.2500  "
        "1234 images/s    6.5 s  best"
    )


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (None, "validation accuracy 0.7500 (epoch 3)"),
        # Wilson's interval of 3 in 4; F1 of 2 * 2 / (2 + 3) and 2 * 1 / (2 + 1).
        (SCORES, "test accuracy 0.7500 (95 % interval 0.3006 to 0.9544, 4 images)  macro F1 0.7333"),
    ],
)
def test_the_result(test: object, expected: str) -> None:
    best = Best(RECORD, SCORES, Path("best.pt"))
    assert result_line(best, test, "accuracy") == expected  # type: ignore[arg-type]


def test_a_verdict() -> None:
    verdict = Verdict(kept=True, before=0.5, after=0.625, gained=7, lost=2, p_value=0.0904)
    assert explain_verdict("top", verdict, "macro_f1", 40) == (
        "top kept: validation macro F1 0.5000 -> 0.6250 (of 40 images, 7 newly right and 2 newly wrong, p = 0.090)"
    )


def test_a_phase_that_begins_with_too_few_errors() -> None:
    verdict = Verdict(False, 0.9625, 1.0, 3, 0, None, min_errors=5)
    assert explain_skipped(verdict, "accuracy", 80) == "3 of 80 images are wrong, fewer than stage.min_errors=5"


@pytest.mark.parametrize(
    ("p_value", "expected"),
    [
        (
            0.125,
            "3 of 80 images are still wrong; even with all right, validation accuracy would go from 0.9625 to 1.0000 "
            "with p = 0.125, and stage.gate=significant needs less than 0.05",
        ),
        (
            None,
            "even with all 80 images right, validation accuracy would go from 0.9625 to 1.0000, too little for "
            "stage.gate=better and its margin",
        ),
    ],
)
def test_a_phase_that_cannot_pass(p_value: float | None, expected: str) -> None:
    assert explain_skipped(Verdict(False, 0.9625, 1.0, 3, 0, p_value), "accuracy", 80) == expected
