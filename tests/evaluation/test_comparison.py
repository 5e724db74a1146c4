"""Classifiers are compared in pairs, on the same images, and many comparisons count as many."""

from __future__ import annotations

import pytest
from conftest import scores_of

from ftexp.evaluation.comparison import compare, holm


def test_a_pair_is_told_apart_by_the_images_on_which_they_differ() -> None:
    truth = [0, 1] * 10
    good, poor = scores_of(truth, truth, 2), scores_of(truth, [1, 0] * 4 + truth[8:], 2)
    (one,) = compare([poor, good])
    assert (one.first, one.second, one.gained, one.lost) == (0, 1, 8, 0)
    assert one.p_value == one.adjusted == pytest.approx(2 * 0.5**8)
    assert one.difference == pytest.approx(0.4)
    assert 0 < one.interval[0] < 0.4 < one.interval[1] < 0.7
    (back,) = compare([good, poor], "macro_f1")
    assert (back.gained, back.lost, back.p_value) == (0, 8, one.p_value)
    assert back.difference < 0


def test_equal_ones_are_not_told_apart() -> None:
    truth = [0, 1] * 10
    (one,) = compare([scores_of(truth, truth, 2)] * 2)
    assert (one.p_value, one.difference, one.interval) == (1.0, 0.0, (0.0, 0.0))


def test_three_are_three_pairs_whose_p_values_are_adjusted() -> None:
    truth = [0, 1] * 10
    scores = [scores_of(truth, [1 - label for label in truth[:n]] + truth[n:], 2) for n in (0, 4, 8)]
    pairs = compare(scores)
    assert [(one.first, one.second) for one in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert [one.p_value for one in pairs] == [0.125, 0.0078125, 0.125]
    assert [one.adjusted for one in pairs] == [0.25, 0.0234375, 0.25]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
