"""Calibration figures and the temperature, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from ftexp.errors import DataError
from ftexp.evaluation.calibration import (
    calibration_error,
    calibration_figures,
    fit_temperature,
    likeliest_temperature,
    negative_log_likelihood,
    reliability_bins,
    tempered,
)

CONFIDENCES = np.array([0.55, 0.6, 0.9, 1.0])
CORRECT = np.array([True, False, True, True])


def test_bins_have_those_above_their_lower_edge_up_to_the_upper_one() -> None:
    bins = reliability_bins(CONFIDENCES, CORRECT, 5)
    assert [one.count for one in bins] == [0, 0, 2, 0, 2]
    assert (bins[2].low, bins[2].high) == (0.4, 0.6)
    assert (bins[2].confidence, bins[2].accuracy) == (pytest.approx(0.575), 0.5)
    assert math.isnan(bins[0].confidence)
    assert reliability_bins(np.array([0.0, 1.0]), np.array([True, True]), 2)[0].count == 1


def test_the_calibration_error_weights_bins_by_their_images() -> None:
    # (2 * |0.575 - 0.5| + 2 * |0.95 - 1|) / 4
    assert calibration_error(reliability_bins(CONFIDENCES, CORRECT, 5)) == pytest.approx(0.0625)
    assert math.isnan(calibration_error([]))


def test_adaptive_bins_hold_equally_many_images() -> None:
    bins = reliability_bins(CONFIDENCES[[2, 0, 3, 1]], CORRECT[[2, 0, 3, 1]], 3, adaptive=True)
    assert [(one.low, one.high, one.count) for one in bins] == [(0.55, 0.6, 2), (0.9, 0.9, 1), (1.0, 1.0, 1)]
    assert calibration_error(bins) == pytest.approx((2 * 0.075 + 0.1) / 4)
    assert len(reliability_bins(CONFIDENCES, CORRECT, 10, adaptive=True)) == 4


def test_the_temperature_gives_the_share_that_is_right() -> None:
    # Two classes, logits (2, 0): three of four are right. A tenth of each counts as the other class, so that the share
    # of class 0 is (3 * 0.9 + 0.1) / 4 = 0.7, and 2 / T = log(0.7 / 0.3).
    logits, labels = np.tile([2.0, 0.0], (4, 1)), np.array([0, 0, 0, 1])
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(2 / math.log(7 / 3), rel=1e-10)
    np.testing.assert_allclose(tempered(logits, temperature), np.tile([0.7, 0.3], (4, 1)))
    assert negative_log_likelihood(logits, labels, temperature) == pytest.approx(
        -(3 * math.log(0.7) + math.log(0.3)) / 4
    )


def test_where_all_are_right_half_an_image_is_wrong() -> None:
    # Of 9 images, 0.5 / 10 of each is of the second class, which is the likeliest other one; the third has no say.
    logits = np.tile([3.0, 1.0, -1e3], (9, 1))
    assert fit_temperature(logits, np.zeros(9, np.int64)) == pytest.approx(2 / math.log(0.95 / 0.05), rel=1e-10)


def test_the_temperature_is_found_again_and_is_the_minimum() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20_000, 5))
    labels = np.array([rng.choice(5, p=row) for row in tempered(honest, 1.0)])
    found = fit_temperature(2.5 * honest, labels)
    assert found == pytest.approx(2.5, rel=0.03)
    best = negative_log_likelihood(2.5 * honest, labels, found)
    for factor in (0.999, 1.001):
        assert negative_log_likelihood(2.5 * honest, labels, factor * found) > best
    assert fit_temperature((2.5 * honest + 1000).astype(np.float32), labels) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("scale", [0.005, 0.3, 5.0, 300.0])
def test_the_temperature_is_where_the_derivative_is_zero(scale: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (200, 10))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    target = logits[np.arange(200), labels] * scale

    def slope(inverse: float) -> float:
        return float(((tempered(scale * logits, 1 / inverse) * scale * logits).sum(axis=1) - target).mean())

    expected = 1 / brentq(slope, 1e-3, 1e3, xtol=1e-14)
    assert likeliest_temperature(scale * logits, target, (1e-3, 1e3)) == pytest.approx(expected, rel=1e-10)
    assert likeliest_temperature(scale * logits, target, (1e-3, expected / 2)) == expected / 2
    assert likeliest_temperature(scale * logits, target, (expected * 2, 1e3)) == expected * 2


def test_where_no_temperature_is_the_best() -> None:
    with pytest.raises(DataError, match="a higher one is always likelier"):
        fit_temperature(np.array([[2.0, 0.0], [1.0, 0.0]]), np.array([1, 1]))


def test_the_figures_count_images_of_unknown_classes_as_wrong() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]))
    figures = calibration_figures(logits, np.array([0, 1, 2]))
    assert figures["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.6)) / 2)
    # Each image has a bin of its own: |0.9 - 1|, |0.6 - 1|, |0.7 - 0|.
    assert figures["ece"] == figures["adaptive_ece"] == pytest.approx((0.1 + 0.4 + 0.7) / 3)
    assert calibration_figures(logits, np.array([0, 1, 2]), 1e3)["ece"] == pytest.approx(2 / 3 - 0.5, abs=1e-3)
