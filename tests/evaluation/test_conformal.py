"""Sets of classes and thresholds, against values worked out by hand and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from ftexp.errors import DataError
from ftexp.evaluation.calibration import tempered
from ftexp.evaluation.conformal import (
    METHODS,
    Method,
    accuracy_threshold,
    class_scores,
    conformal_threshold,
    cross_fitted_answers,
    cross_fitted_sets,
    images_for_accuracy,
    images_for_coverage,
    prediction_sets,
)

ROWS = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])


def drawn(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of four classes, and labels that are drawn by their probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (size, 4))
    return logits, np.array([rng.choice(4, p=row) for row in tempered(logits, 1.0)])


def test_scores_of_both_methods() -> None:
    np.testing.assert_allclose(class_scores(ROWS, "lac"), 1 - ROWS)
    np.testing.assert_allclose(class_scores(ROWS, "aps"), [[0.5, 0.8, 1.0], [1.0, 0.9, 0.7]])


def test_the_threshold_is_the_score_of_the_right_rank() -> None:
    # 9 images, LAC scores 0.1 to 0.9: ceil(10 * 0.8) = 8.
    right = np.arange(1, 10) / 10
    probabilities, labels = np.stack([1 - right, right], axis=1), np.zeros(9, int)
    assert conformal_threshold(probabilities, labels, 0.8, "lac") == pytest.approx(0.8)
    assert conformal_threshold(probabilities, labels, 0.9, "lac") == pytest.approx(0.9)
    with pytest.raises(DataError, match=r"A coverage of 0\.95 takes at least 19 images, and there are 9"):
        conformal_threshold(probabilities, labels, 0.95, "lac")
    assert (images_for_coverage(0.9), images_for_coverage(0.99), images_for_coverage(0.5)) == (9, 99, 1)


def test_sets_have_the_classes_up_to_the_threshold_and_the_likeliest_always() -> None:
    assert prediction_sets(ROWS, 0.75, "lac").tolist() == [[True, True, False], [False, False, True]]
    assert prediction_sets(ROWS, 0.9, "aps").tolist() == [[True, True, False], [False, True, True]]
    assert prediction_sets(ROWS, 0.0, "lac").tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("method", METHODS)
def test_coverage_is_reached_on_new_images(method: Method) -> None:
    logits, labels = drawn(2000)
    threshold = conformal_threshold(tempered(logits, 1.0), labels, 0.9, method)
    new, truth = drawn(4000, seed=1)
    covered = prediction_sets(tempered(new, 1.0), threshold, method)[np.arange(4000), truth].mean()
    assert 0.885 < covered < 0.95
    reached = cross_fitted_sets(3 * logits, labels, 0.9, method)  # too confident: the temperature repairs it
    assert reached.coverage == pytest.approx(covered, abs=0.02)
    assert 1 < reached.mean_size < 4


def test_folds_do_not_see_their_own_images() -> None:
    # Two images in three folds of one: each threshold comes from the two others.
    logits = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
    with pytest.raises(DataError, match=r"takes at least 3 images, and there are 2"):
        cross_fitted_sets(logits, np.array([0, 0, 1]), 0.7, "lac")


def test_the_lowest_threshold_that_is_right_often_enough() -> None:
    confidences = np.array([0.99, 0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, True, True, False, True, False])
    assert accuracy_threshold(confidences, correct, 0.75) == 0.6  # 4 of 5; of all six 4
    assert accuracy_threshold(confidences, correct, 0.5) == 0.5
    with pytest.raises(DataError, match=r"no threshold above which 0\.9 .* at least 10 of the 6 images"):
        accuracy_threshold(confidences, correct, 0.9)
    assert (images_for_accuracy(0.99), images_for_accuracy(0.9), images_for_accuracy(0.95)) == (100, 10, 20)


def test_images_of_equal_confidence_are_answered_together() -> None:
    assert accuracy_threshold(np.array([0.9, 0.8, 0.8, 0.8]), np.array([True, True, False, False]), 0.5) == 0.8
    with pytest.raises(DataError, match="no threshold"):
        accuracy_threshold(np.array([0.8, 0.8, 0.8, 0.8]), np.array([True, True, False, False]), 0.7)


def test_the_accuracy_is_about_that_on_new_images() -> None:
    logits, labels = drawn(3000)
    reached = cross_fitted_answers(logits, labels, 0.9)
    assert reached.num_samples == 3000
    assert 200 < reached.num_answered < 2000
    assert reached.num_right / reached.num_answered == pytest.approx(0.9, abs=0.03)


def test_a_part_without_a_threshold_answers_nothing() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]))
    labels = np.array([0, 0, 1, 1])
    assert accuracy_threshold(tempered(logits, 1.0).max(axis=1), logits.argmax(axis=1) == labels, 0.6) > 0
    reached = cross_fitted_answers(logits, np.array([1, 1, 0, 1]), 0.6, folds=4)
    assert (reached.num_samples, reached.num_right) == (4, 0)
    assert reached.num_answered < 4
