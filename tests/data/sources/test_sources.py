from __future__ import annotations

import numpy as np

from ftexp.config import DataConfig
from ftexp.data.samples import sorted_naturally
from ftexp.data.sources.registry import read_samples


def test_digits_are_the_1797_of_scikit_learn() -> None:
    samples = read_samples(DataConfig(source="digits"))
    assert len(samples) == 1797
    first = samples[0]
    assert (first.path, first.label, first.split) == ("digits/0000", "0", None)
    assert first.pixels is not None
    assert first.pixels.shape == (10, 10, 3)
    assert first.pixels.dtype == np.uint8
    # scikit-learn's first digit holds 0, 0, 5, 13, 9, 1, 0, 0 in its first row, out of 16; a margin is around it.
    assert first.pixels[1, :, 1].tolist() == [0, 0, 0, 80, 207, 143, 16, 0, 0, 0]
    assert not first.pixels[0].any()
    assert max(int(sample.pixels.max()) for sample in samples if sample.pixels is not None) == 255


def test_the_white_level_of_the_settings_is_that_of_every_image() -> None:
    assert {sample.white_level for sample in read_samples(DataConfig(source="digits", white_level=4095.0))} == {4095.0}


def test_natural_order() -> None:
    assert sorted_naturally(["b", "10", "a10", "9", "a2"]) == ["9", "10", "a2", "a10", "b"]
    assert sorted_naturally(["1", "01"]) == sorted_naturally(["01", "1"])
    assert sorted_naturally(["a b", "a1", "a", "a00", "a" + "9" * 5000]) == ["a", "a00", "a1", "a" + "9" * 5000, "a b"]
