from __future__ import annotations

import numpy as np
import pytest

from ftexp.config import PhaseConfig, StageConfig
from ftexp.training.gate import bootstrap_macro_f1, judge, mcnemar
from ftexp.training.metrics import Scores, macro_f1


def scores(labels: list[int], predictions: list[int]) -> Scores:
    truth, guess = np.array(labels), np.array(predictions)
    confusion = np.zeros((2, 2), dtype=np.int64)
    np.add.at(confusion, (truth, guess), 1)
    accuracy = float(np.mean(truth == guess))
    return Scores(0.0, accuracy, macro_f1(confusion), len(labels), confusion, truth, guess)


def stage(**settings: object) -> StageConfig:
    return StageConfig(epochs=1, phases=[PhaseConfig(name="a", learn="head", epochs=1)], **settings)


LABELS = [0, 1] * 20
WORSE = scores(LABELS, [1 - LABELS[i] if i < 10 else LABELS[i] for i in range(40)])  # 30 of 40
BETTER = scores(LABELS, [1 - LABELS[i] if i in (0, 39) else LABELS[i] for i in range(40)])  # gains 9, loses 1


def test_mcnemar_by_hand() -> None:
    # At least 9 heads of 10 fair coins: (10 + 1) / 1024.
    assert mcnemar(9, 1) == pytest.approx(11 / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) > 0.99


def test_a_significant_gain_is_kept_with_its_numbers() -> None:
    verdict = judge(stage(gate="significant"), "accuracy", WORSE, BETTER)
    assert (verdict.kept, verdict.before, verdict.after) == (True, 0.75, 0.95)
    assert (verdict.gained, verdict.lost) == (9, 1)
    assert verdict.p_value == pytest.approx(11 / 1024)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"gate": "better"}, True),
        ({"gate": "better", "margin": 0.2}, False),
        ({"gate": "better", "margin": 0.04}, True),
        ({"gate": "significant"}, False),
        ({"gate": "off"}, True),
    ],
)
def test_a_small_gain_of_two_images_passes_only_some_gates(settings: dict[str, object], kept: bool) -> None:
    slightly = scores(LABELS, [1 - LABELS[i] if i < 8 else LABELS[i] for i in range(40)])
    assert judge(stage(**settings), "accuracy", WORSE, slightly).kept is kept


@pytest.mark.parametrize(("gate", "kept"), [("better", False), ("significant", False), ("off", True)])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_no_gain_and_a_loss_are_undone(gate: str, kept: bool, metric: str) -> None:
    assert judge(stage(gate=gate), metric, WORSE, WORSE).kept is kept
    assert judge(stage(gate=gate), metric, BETTER, WORSE).kept is kept


def test_macro_f1_is_compared_by_a_paired_bootstrap() -> None:
    assert bootstrap_macro_f1(WORSE, BETTER) < 0.01
    assert bootstrap_macro_f1(BETTER, WORSE) > 0.99
    assert judge(stage(gate="significant"), "macro_f1", WORSE, BETTER).kept
