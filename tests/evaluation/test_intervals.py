from __future__ import annotations

import numpy as np
import pytest
from conftest import scores_of
from scipy.stats import binomtest

from ftexp.evaluation import intervals
from ftexp.evaluation.intervals import (
    accuracy_interval,
    bootstrap_intervals,
    drawn_times,
    num_resamples,
    smallest_difference,
    warn_if_too_small,
)
from ftexp.evaluation.scores import Scores


def scores_with(confusion: list[list[int]]) -> Scores:
    """Samples that give this confusion matrix."""
    counts = np.array(confusion)
    truth, predicted = np.nonzero(counts)
    repeats = counts[truth, predicted]
    return scores_of(np.repeat(truth, repeats), np.repeat(predicted, repeats), len(counts))


def test_a_perfect_score_has_no_spread() -> None:
    names = ["accuracy", "macro_f1", "matthews", "top_5"]
    intervals = bootstrap_intervals(scores_with([[30, 0, 0], [0, 20, 0], [0, 0, 10]]), names)
    assert intervals == dict.fromkeys(names, (1.0, 1.0))


def test_accuracy_interval_is_near_the_normal_approximation() -> None:
    # 80 of 100 right: 0.8 +- 1.96 * sqrt(0.8 * 0.2 / 100) = 0.8 +- 0.078.
    low, high = bootstrap_intervals(scores_with([[40, 10], [10, 40]]), ["accuracy"])["accuracy"]
    assert (low, high) == pytest.approx((0.722, 0.878), abs=0.015)


def test_macro_f1_of_a_rare_class_is_less_certain_than_accuracy() -> None:
    intervals = bootstrap_intervals(scores_with([[950, 5], [5, 10]]), ["accuracy", "macro_f1"])
    width = {name: high - low for name, (low, high) in intervals.items()}
    assert width["macro_f1"] > 5 * width["accuracy"]
    low, high = intervals["macro_f1"]
    assert low < (2 * 950 / 1910 + 2 * 10 / 30) / 2 < high


def test_the_loss_is_resampled_too() -> None:
    """The mean of 100 losses of 0 or 1, half of each: 0.5 +- 1.96 * 0.05."""
    labels = np.zeros(100, np.int64)
    scores = Scores(labels, labels, labels, np.tile([0.0, 1.0], 50), 2)
    assert bootstrap_intervals(scores, ["log_loss"])["log_loss"] == pytest.approx((0.402, 0.598), abs=0.015)


def test_areas_are_resampled_as_often_as_their_size_allows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    p = (labels * 0.5 + rng.normal(0, 0.5, 200)).astype(np.float32)
    scores = Scores(labels, labels, labels * 0, np.zeros(200), 2, np.stack([-p, p], axis=1))
    low, high = bootstrap_intervals(scores, ["auroc"])["auroc"]
    assert low < scores.metric("auroc") < high
    assert 0.05 < high - low < 0.2
    assert num_resamples(scores, "auroc") == 2_000
    assert num_resamples(scores_of(np.zeros(100_000, np.int64), np.zeros(100_000, np.int64), 100), "auroc") == 200
    assert num_resamples(scores, "accuracy") == 2_000


def test_seeded() -> None:
    scores = scores_with([[400, 110], [90, 390]])
    assert bootstrap_intervals(scores, ["accuracy"], 1) == bootstrap_intervals(scores, ["accuracy"], 1)
    assert bootstrap_intervals(scores, ["accuracy"], 1) != bootstrap_intervals(scores, ["accuracy"], 2)


def test_parts_that_fit_into_memory_change_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_with([[40, 9, 1], [5, 30, 5], [0, 2, 8]])
    names = ["accuracy", "macro_f1", "balanced_accuracy", "cohen_kappa", "matthews"]
    at_once = bootstrap_intervals(scores, names)
    monkeypatch.setattr(intervals, "MAX_DRAWN", 8 * 300)  # 300 resamples of the eight cells that are not empty
    assert bootstrap_intervals(scores, names) == at_once


def test_groups_are_drawn_whole_and_parts_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.array([0, 2, 1, 2])
    (at_once,) = drawn_times(groups, 7, seed=3)
    rng = np.random.default_rng(3)
    for column in at_once.T:
        chosen = rng.integers(0, 3, 3).tolist()
        assert column.tolist() == [chosen.count(group) for group in groups]
    monkeypatch.setattr(intervals, "MAX_DRAWN", 12)
    monkeypatch.setattr(intervals, "MIN_AT_ONCE", 1)
    parts = list(drawn_times(groups, 7, seed=3))
    assert [part.shape[1] for part in parts] == [3, 3, 1]
    assert np.array_equal(np.concatenate(parts, axis=1), at_once)


def test_wilson_interval_by_hand() -> None:
    # 9 of 10, z = 1.96: centre (0.9 + 0.192) / 1.384, half width 1.96 * sqrt(0.009 + 0.0096) / 1.384.
    low, high = accuracy_interval(9, 10)
    assert (low, high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert accuracy_interval(10, 10)[1] == 1.0
    assert accuracy_interval(0, 10)[0] == 0.0


@pytest.mark.parametrize(("correct", "samples"), [(0, 3), (3, 3), (1, 2), (877, 1000), (99_999, 100_000)])
def test_wilson_interval_is_scipys(correct: int, samples: int) -> None:
    expected = binomtest(correct, samples).proportion_ci(method="wilson")
    assert accuracy_interval(correct, samples) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_smallest_difference_by_hand() -> None:
    assert smallest_difference(600) == pytest.approx(0.01)
    assert smallest_difference(3) == 1.0


def test_warning_only_when_too_small(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_too_small(300)
    assert not caplog.text
    warn_if_too_small(100)
    assert "100 images: a difference of less than 6.0 points" in caplog.text
