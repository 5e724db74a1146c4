from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import scores_of

from ftexp.config import PhaseConfig, StageConfig
from ftexp.evaluation.gate import judge, mcnemar, paired_bootstrap
from ftexp.evaluation.metric_names import METRICS


def stage(**settings: object) -> StageConfig:
    return StageConfig(epochs=1, phases=[PhaseConfig(name="a", learn="head", epochs=1)], **settings)


LABELS = [0, 1] * 20
WORSE = scores_of(LABELS, [1 - LABELS[i] if i < 10 else LABELS[i] for i in range(40)], 2)  # 30 of 40
BETTER = scores_of(LABELS, [1 - LABELS[i] if i in (0, 39) else LABELS[i] for i in range(40)], 2)  # gains 9, loses 1


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
    slightly = scores_of(LABELS, [1 - LABELS[i] if i < 8 else LABELS[i] for i in range(40)], 2)
    assert judge(stage(**settings), "accuracy", WORSE, slightly).kept is kept


@pytest.mark.parametrize(("gate", "kept"), [("better", False), ("significant", False), ("off", True)])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_no_gain_and_a_loss_are_undone(gate: str, kept: bool, metric: str) -> None:
    assert judge(stage(gate=gate), metric, WORSE, WORSE).kept is kept
    assert judge(stage(gate=gate), metric, BETTER, WORSE).kept is kept


def test_macro_f1_is_compared_by_a_paired_bootstrap() -> None:
    assert paired_bootstrap(WORSE, BETTER, "macro_f1") < 0.01
    assert paired_bootstrap(BETTER, WORSE, "macro_f1") > 0.99
    assert judge(stage(gate="significant"), "macro_f1", WORSE, BETTER).kept


@pytest.mark.parametrize("metric", [name for name, one in METRICS.items() if one.needs != "probabilities"])
def test_every_metric_passes_the_gate_by_its_own_gain(metric: str) -> None:
    """A loss that falls is a gain; nothing but the metric that is named is tested."""
    worse = replace(WORSE, losses=np.where(WORSE.ranks > 0, 3.0, 0.1), ranks=WORSE.ranks * 7)
    better = replace(BETTER, losses=np.where(BETTER.ranks > 0, 3.0, 0.1), ranks=BETTER.ranks * 7)
    passed, failed = (judge(stage(gate="significant"), metric, *pair) for pair in ((worse, better), (better, worse)))
    assert passed.kept
    assert passed.p_value is not None
    assert passed.p_value < 0.05
    assert (passed.before, passed.after) == (worse.metric(metric), better.metric(metric))
    assert not failed.kept


def test_the_margin_of_a_loss_is_how_far_it_falls() -> None:
    before, after = replace(WORSE, losses=np.full(40, 1.0)), replace(WORSE, losses=np.full(40, 0.9))
    assert judge(stage(gate="better", margin=0.05), "log_loss", before, after).kept
    assert not judge(stage(gate="better", margin=0.2), "log_loss", before, after).kept
