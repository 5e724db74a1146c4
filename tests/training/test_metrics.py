from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from ftexp.ranks import ALONE
from ftexp.training.metrics import ScoreKeeper, accuracy_interval, is_better, macro_f1


def test_scores_over_uneven_batches_equal_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(23, 5, generator=generator)
    labels = torch.randint(0, 4, (23,), generator=generator)  # class 4 never occurs in the truth
    keeper = ScoreKeeper(5)
    for start in range(0, 23, 8):
        keeper.update(logits[start : start + 8], labels[start : start + 8])
    scores, not_finite = keeper.compute(ALONE)
    assert not_finite == []
    predicted = logits.argmax(dim=1)
    assert scores.num_samples == 23
    assert scores.accuracy == pytest.approx((predicted == labels).double().mean().item())
    assert scores.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert scores.confusion.sum(axis=1).tolist() == torch.bincount(labels, minlength=5).tolist()
    assert scores.num_correct == int((predicted == labels).sum())
    assert scores.labels.tolist() == labels.tolist()
    assert scores.predictions.tolist() == predicted.tolist()


def test_macro_f1_by_hand() -> None:
    # Class 0: 3 hits, 1 missed, none wrongly claimed: 6/7. Class 1: 2 hits, 1 wrongly claimed: 4/5. Class 2 absent.
    confusion = np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])
    assert macro_f1(confusion) == pytest.approx((6 / 7 + 4 / 5) / 2)


def test_wilson_interval_by_hand() -> None:
    # 9 of 10, z = 1.96: centre (0.9 + 0.192) / 1.384, half width 1.96 * sqrt(0.009 + 0.0096) / 1.384.
    low, high = accuracy_interval(9, 10)
    assert (low, high) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert accuracy_interval(10, 10)[1] == pytest.approx(1.0)


def test_ties_keep_the_earlier_and_nan_never_wins() -> None:
    assert is_better(0.0, None)
    assert is_better(0.6, 0.5)
    assert not is_better(0.5, 0.5)
    assert not is_better(math.nan, None)
    assert not is_better(math.nan, 0.1)
