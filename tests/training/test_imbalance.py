from __future__ import annotations

import pytest

from ftexp.data.samples import Sample
from ftexp.training.imbalance import class_counts, class_weights

TRAIN = [30, 10]


def test_counts_stand_in_the_order_of_the_classes() -> None:
    samples = [Sample(str(i), "a" if i < 30 else "b") for i in range(40)]
    assert class_counts(samples, ["b", "a"]) == [10, 30]


def test_weights_by_hand() -> None:
    assert class_weights(TRAIN, "none") is None
    balanced = class_weights(TRAIN, "balanced")
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([0.5, 1.5])  # 1/30 : 1/10 with mean 1


def test_effective_numbers_flatten_out() -> None:
    effective = class_weights([20_000, 10_000], "effective")
    assert effective is not None
    # Both classes have far more than 1 / (1 - 0.999) = 1,000 samples: about equally many that count.
    assert effective.tolist() == pytest.approx([1, 1], abs=1e-3)
    few = class_weights(TRAIN, "effective")
    assert few is not None
    ratio = (1 - 0.999**30) / (1 - 0.999**10)
    assert (few[1] / few[0]).item() == pytest.approx(ratio, rel=1e-4)
