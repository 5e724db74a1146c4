"""The simple models of one field of metadata are those of scikit-learn, which is not imported for them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import ComplementNB
from sklearn.tree import DecisionTreeClassifier

from ftexp.audit.label_from_field import (
    _by_number,
    _by_runs,
    _by_value,
    _cuts,
    _folds,
    _most_frequent,
    _purity,
    balanced_accuracy,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.choice(3, 400, p=[0.6, 0.3, 0.1])
KNOWN, ASKED = np.arange(300), np.arange(300, 400)


def test_numbers_are_cut_as_by_a_decision_tree() -> None:
    numbers = RNG.normal(TRUTH, 1.0)
    tree = DecisionTreeClassifier(max_depth=5, class_weight="balanced", min_samples_leaf=5, random_state=0)
    expected = tree.fit(numbers[KNOWN, None], TRUTH[KNOWN]).predict(numbers[ASKED, None])
    assert len(set(expected)) == 3
    np.testing.assert_array_equal(_by_number(numbers.tolist(), TRUTH)(KNOWN, ASKED), expected)


def test_purity_is_the_sum_of_squared_weights_of_classes_by_their_sum() -> None:
    truth, weights = np.array([0, 1, 0, 0]), np.array([0.5, 1.0, 0.5, 0.5])
    expected = [0.25 / 0.5, (0.25 + 1) / 1.5, (1 + 1) / 2, (2.25 + 1) / 2.5]
    np.testing.assert_allclose(_purity(truth, weights), expected, rtol=1e-15)


def test_of_equally_good_cuts_the_first_is_made() -> None:
    """Without rounding it would be the third one, at 6.5: it differs in the last bit."""
    truth = np.repeat([0, 1, 2, 1, 0], [4, 3, 5, 3, 4])
    assert _cuts(np.arange(19.0), truth, (1 / np.bincount(truth))[truth], 1) == [4.5]


def test_names_are_told_apart_as_by_complement_naive_bayes() -> None:
    names = [f"{'Cam' if label else 'scan'}{RNG.integers(10**3)}-{label * RNG.integers(2)}" for label in TRUTH]
    counts = CountVectorizer(analyzer="char", ngram_range=(2, 4)).fit_transform([f" {name} " for name in names])
    expected = ComplementNB().fit(counts[KNOWN], TRUTH[KNOWN]).predict(counts[ASKED])
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(_by_runs(names, TRUTH)(KNOWN, ASKED), expected)


def test_a_value_stands_for_the_class_of_which_the_largest_share_has_it() -> None:
    # "x" is on 2 of 6 samples of class 0 and on the only one of class 1; "z" is not known.
    values, truth = list("xxyyyyxxyz"), np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 1])
    assert _by_value(values, truth)(np.arange(7), np.arange(7, 10)).tolist() == [1, 0, 0]


def test_the_most_frequent_runs_come_first() -> None:
    assert [one.tolist() for one in _most_frequent([["b", "a"], [], ["b", "c", "b"]])] == [[0, 1], [], [0, 2, 0]]


def test_every_class_is_spread_evenly_over_the_folds() -> None:
    truth = np.repeat([0, 1, 2], [5, 12, 30])
    counts = np.stack([np.bincount(truth[_folds(truth, 5) == fold], minlength=3) for fold in range(5)])
    assert counts[:, 0].tolist() == [1] * 5
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()


def test_the_standard_error_of_recalls() -> None:
    # "a" is always right, "b" never: variances 0.25 / 10 / 10 and 0.25 / 20 / 20, of a mean of two.
    values = ["x"] * 10 + ["x"] * 20
    score, error = balanced_accuracy("folder", values, ["a"] * 10 + ["b"] * 20, 5)
    assert (score, error) == (0.5, pytest.approx((0.25 / 100 + 0.25 / 400) ** 0.5 / 2))
