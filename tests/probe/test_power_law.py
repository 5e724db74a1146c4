"""A power law through errors that were made with one, and how sure of its continuation one can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from ftexp.probe.curve import Errors
from ftexp.probe.power_law import Gain, PowerLaw, gain_of, quantiles, still_rises

SIZES = 400 * 2 ** (-np.arange(8)[::-1] / 2)


def law(sizes: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
    return 0.04 + 0.08 * (np.asarray(sizes) / 400) ** -0.6


TRUE_GAIN = float(law(500) - law(1000))


def measured(noise: float, seed: int = 0, shared: float = 0.0, bend: float = 0.0) -> Errors:
    """Errors around the law; a part of the noise moves all sizes alike."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> npt.NDArray[np.float64]:
        return shared * rng.standard_normal((count, 1)) + noise * rng.standard_normal((count, 8))

    values = law(SIZES) + draw(1)[0]
    values[0] += bend
    return Errors(SIZES, values, values + draw(500), values + draw(500), 1e-9)


def told(errors: Errors, more: int = 500) -> Gain:
    return gain_of(PowerLaw.fit(errors), errors, 500, more)


def test_the_law_that_made_the_errors_is_found() -> None:
    errors = measured(noise=1e-4)
    found, gain = PowerLaw.fit(errors), told(errors)
    assert quantiles(found.exponent)[1] == pytest.approx(0.6, abs=0.2)
    assert gain.gain == pytest.approx(TRUE_GAIN, abs=0.002)
    assert gain.low < TRUE_GAIN < gain.high
    assert quantiles(found.error(400))[1] == pytest.approx(0.12, abs=0.002)


def test_the_band_grows_with_noise_and_with_the_distance() -> None:
    bands = [told(measured(noise)) for noise in (0.002, 0.006)]
    assert bands[1].high - bands[1].low > 1.5 * (bands[0].high - bands[0].low)
    near = told(measured(0.006), 100)
    assert near.high - near.low < bands[1].high - bands[1].low
    assert near.gain < bands[1].gain


def test_what_moves_all_sizes_alike_does_not_blur_the_gain() -> None:
    alike = told(measured(0.002, shared=0.02))
    apart = told(measured(0.02))
    assert alike.high - alike.low < 0.75 * (apart.high - apart.low)


def test_the_band_holds_the_gain() -> None:
    held = []
    for seed in range(12):
        gain = told(measured(0.005, seed, shared=0.01))
        held.append(gain.low <= TRUE_GAIN <= gain.high)
    assert sum(held) >= 11


def test_one_measurement_has_an_error_of_its_own() -> None:
    """That of the difference between the largest size and the nearest to half of it."""
    errors = measured(1e-4)
    noise = np.zeros((500, 8))
    noise[:, 5] = 0.02 * np.random.default_rng(1).standard_normal(500)
    gain = told(replace(errors, single=errors.values + noise))
    width = float(np.hypot(gain.high - gain.low, 2 * 1.96 * 0.02))
    assert gain.measured_high - gain.measured_low == pytest.approx(width, rel=0.1)
    assert gain.measured_low < 0 < gain.low
    near = told(replace(errors, single=errors.values + noise), 200)
    assert near.measured_high - near.measured_low < 0.01  # the nearest to 500 / 700 is another size


def test_one_size_far_from_the_law_does_not_decide() -> None:
    straight, bent = (told(measured(0.001, bend=bend)) for bend in (0.0, 0.1))
    assert bent.gain == pytest.approx(straight.gain, abs=0.008)
    assert bent.low < TRUE_GAIN < bent.high


def test_where_nothing_is_wrong_one_image_in_the_future_may_be() -> None:
    none = Errors(SIZES, np.zeros(8), np.zeros((500, 8)), np.zeros((500, 8)), of_one=0.01)
    gain = told(none)
    assert gain.low == 0
    assert 0.001 < gain.high < 0.03


def test_a_curve_that_grows_steeper_is_followed_at_its_end() -> None:
    steeper = 0.12 * np.exp(-np.array([-0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1, 0]) * 2.2)
    steeper[-3:] = 0.12 * 2.0 ** np.array([0.8, 0.4, 0.0])  # an exponent of 0.8 in the last doubling
    draws = steeper + 0.002 * np.random.default_rng(0).standard_normal((500, 8))
    gain = told(Errors(SIZES, steeper, draws, draws, 1e-9))
    assert gain.low < 0.12 * (1.25**-0.8 - 2.5**-0.8) < gain.high


def test_the_exponent_drifts_on_where_nothing_was_measured() -> None:
    law = PowerLaw(np.zeros(2), np.full(2, 0.1), np.full(2, 0.5), np.array([0.0, 0.1]), 100.0)
    assert law.error(50) == pytest.approx([0.1 * 2**0.5] * 2)
    assert law.error(200) == pytest.approx([0.1 / 2**0.5, 0.11 / 2**0.5])
    assert law.error(400) == pytest.approx([0.05, 0.05 * (1 + 0.1 * 2**1.5)])


def test_more_than_twice_as_many_is_not_told() -> None:
    with pytest.raises(AssertionError, match="one step ahead"):
        told(measured(1e-3), 501)


def test_a_curve_still_rises_where_its_second_half_does() -> None:
    assert still_rises(measured(0.002))
    assert not still_rises(measured(0.1))
