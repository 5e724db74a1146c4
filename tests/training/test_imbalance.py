from __future__ import annotations

import numpy as np
import pytest

from ftexp.data.samples import Sample
from ftexp.training.imbalance import class_table, class_weights, majority_baseline

TRAIN = [Sample(str(i), "a" if i < 30 else "b") for i in range(40)]


def test_weights_by_hand() -> None:
    assert class_weights(TRAIN, ["a", "b"], "none") is None
    balanced = class_weights(TRAIN, ["a", "b"], "balanced")
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([0.5, 1.5])  # 1/30 : 1/10 with mean 1


def test_effective_numbers_flatten_out() -> None:
    many = [Sample(str(i), "a" if i < 20_000 else "b") for i in range(30_000)]
    effective = class_weights(many, ["a", "b"], "effective")
    assert effective is not None
    # Both classes have far more than 1 / (1 - 0.999) = 1,000 samples: about equally many that count.
    assert effective.tolist() == pytest.approx([1, 1], abs=1e-3)
    few = class_weights(TRAIN, ["a", "b"], "effective")
    assert few is not None
    ratio = (1 - 0.999**30) / (1 - 0.999**10)
    assert (few[1] / few[0]).item() == pytest.approx(ratio, rel=1e-4)


def test_table_by_hand() -> None:
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    rows = class_table(confusion, ["a", "b", "c"])
    assert rows[0] == {"class": "a", "precision": pytest.approx(8 / 9), "recall": 0.8, "f1": 16 / 19, "support": 10}
    assert rows[2] == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_baseline_says_the_largest_class_of_training() -> None:
    baseline = majority_baseline(TRAIN, ["a", "b"], np.array([[1, 1], [2, 4]]))
    # "a" for all 8: right for 2; F1 of a = 2 * 2 / (2 + 8), of b = 0.
    assert baseline == {"class": "a", "accuracy": 0.25, "macro_f1": pytest.approx(0.2)}
