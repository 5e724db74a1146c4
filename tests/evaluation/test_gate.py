from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import scores_of
from scipy.stats import binomtest

from ftexp.config import PhaseConfig, StageConfig
from ftexp.evaluation import gate
from ftexp.evaluation.gate import best_case, judge, mcnemar, paired_bootstrap
from ftexp.evaluation.scores import Scores
from ftexp.metric_names import METRICS


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


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (0, 1), (30, 12), (400, 371), (5_100, 4_900)])
def test_mcnemar_is_scipys(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, alternative="greater").pvalue
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


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


def with_wrong(num_wrong: int) -> Scores:
    """Of 40 images of two classes."""
    return scores_of(LABELS, [1 - label if i < num_wrong else label for i, label in enumerate(LABELS)], 2)


@pytest.mark.parametrize(
    ("settings", "metric", "num_wrong", "p_value", "kept"),
    [
        # n heads of n fair coins: 1 / 2 ** n, one-sided.
        ({"gate": "significant"}, "accuracy", 5, 1 / 32, True),
        ({"gate": "significant"}, "accuracy", 4, 1 / 16, False),
        ({"gate": "significant"}, "accuracy", 0, 1.0, False),
        # 40 draws of 40 images miss n of them: (1 - n / 40) ** 40.
        ({"gate": "significant"}, "macro_f1", 4, 0.9**40, True),
        ({"gate": "significant"}, "macro_f1", 2, 0.95**40, False),
        ({"gate": "significant"}, "log_loss", 0, 0.0, True),  # the losses are 1, though all is right
        ({"gate": "better", "margin": 0.05}, "accuracy", 3, None, True),
        ({"gate": "better", "margin": 0.05}, "accuracy", 1, None, False),
        ({"gate": "better"}, "accuracy", 0, None, False),
        ({"gate": "off"}, "accuracy", 0, None, True),
        ({"gate": "better", "min_errors": 5}, "accuracy", 5, None, True),
        ({"gate": "better", "min_errors": 5}, "accuracy", 4, None, False),
        ({"gate": "significant", "min_errors": 7}, "accuracy", 6, 1 / 64, False),
        ({"gate": "off", "min_errors": 5}, "accuracy", 0, None, True),
    ],
)
def test_the_best_case_by_hand(
    settings: dict[str, object], metric: str, num_wrong: int, p_value: float | None, kept: bool
) -> None:
    verdict = best_case(stage(**settings), metric, with_wrong(num_wrong))
    assert verdict.kept is kept
    assert (verdict.gained, verdict.lost) == (num_wrong, 0)
    assert verdict.p_value == (None if p_value is None else pytest.approx(p_value, abs=0.02))
    if metric != "log_loss":
        assert (verdict.before, verdict.after) == (pytest.approx(1 - num_wrong / 40, abs=1e-3), 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_no_phase_passes_where_the_best_case_does_not(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it predicts, its p-value is not below that of the best case, so that nothing is skipped wrongly."""
    monkeypatch.setattr(gate, "num_resamples", lambda *_: 20)
    rng = np.random.default_rng(0)
    for _ in range(3):
        before, after = (_drawn(rng, sharpness) for sharpness in (1.0, 3.0))
        best = best_case(stage(gate="significant"), metric, before)
        other = judge(stage(gate="significant"), metric, before, after)
        assert best.p_value is not None
        assert other.p_value is not None
        assert best.p_value <= other.p_value
        assert METRICS[metric].gain(other.after, best.after) >= 0


def _drawn(rng: np.random.Generator, sharpness: float) -> Scores:
    """Of 12 images of two classes; probabilities are the nearer to the truth, the larger the sharpness."""
    labels = np.arange(12) % 2
    probability = 1 / (1 + np.exp(-(sharpness * (2 * labels - 1) + rng.normal(0, 2, 12))))
    probabilities = np.stack([1 - probability, probability], axis=1).astype(np.float32)
    predictions = probabilities.argmax(axis=1)
    losses = -np.log(probabilities[np.arange(12), labels].astype(np.float64))
    return Scores(labels, predictions, (predictions != labels) * 6, losses, 2, np.log(probabilities))
