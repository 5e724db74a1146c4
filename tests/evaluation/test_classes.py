from __future__ import annotations

import numpy as np
import pytest

from ftexp.evaluation.classes import class_table, majority_baseline


def test_table_by_hand() -> None:
    confusion = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    rows = class_table(confusion, ["a", "b", "c"])
    assert rows[0] == {"class": "a", "precision": pytest.approx(8 / 9), "recall": 0.8, "f1": 16 / 19, "support": 10}
    assert rows[2] == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_the_baseline_predicts_the_largest_class_of_the_training_set() -> None:
    baseline = majority_baseline(["a"] * 30 + ["b"] * 10, ["a", "b"], np.array([[1, 1], [2, 4]]))
    # "a" for all 8: right for 2; F1 of a = 2 * 2 / (2 + 8), of b = 0.
    assert baseline == {"class": "a", "accuracy": 0.25, "macro_f1": pytest.approx(0.2)}
