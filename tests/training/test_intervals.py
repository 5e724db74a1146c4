from __future__ import annotations

import numpy as np
import pytest

from ftexp.training.intervals import bootstrap_intervals, smallest_difference, warn_if_too_small


def test_a_perfect_score_has_no_spread() -> None:
    intervals = bootstrap_intervals(np.diag([30, 20, 10]))
    assert intervals == {"accuracy": (1.0, 1.0), "macro_f1": (1.0, 1.0)}


def test_accuracy_interval_is_near_the_normal_approximation() -> None:
    # 80 of 100 right: 0.8 +- 1.96 * sqrt(0.8 * 0.2 / 100) = 0.8 +- 0.078.
    low, high = bootstrap_intervals(np.array([[40, 10], [10, 40]]))["accuracy"]
    assert (low, high) == pytest.approx((0.722, 0.878), abs=0.015)


def test_macro_f1_of_a_rare_class_is_less_certain_than_accuracy() -> None:
    intervals = bootstrap_intervals(np.array([[950, 5], [5, 10]]))
    width = {name: high - low for name, (low, high) in intervals.items()}
    assert width["macro_f1"] > 5 * width["accuracy"]
    low, high = intervals["macro_f1"]
    assert low < (2 * 950 / 1910 + 2 * 10 / 30) / 2 < high


def test_seeded() -> None:
    confusion = np.array([[40, 10], [10, 40]])
    assert bootstrap_intervals(confusion, 1) == bootstrap_intervals(confusion, 1)
    assert bootstrap_intervals(confusion, 1) != bootstrap_intervals(confusion, 2)


def test_smallest_difference_by_hand() -> None:
    assert smallest_difference(600) == pytest.approx(0.01)
    assert smallest_difference(3) == 1.0


def test_warning_only_when_too_small(caplog: pytest.LogCaptureFixture) -> None:
    warn_if_too_small(300)
    assert not caplog.text
    warn_if_too_small(100)
    assert "100 images: a difference of less than 6.0 points" in caplog.text
