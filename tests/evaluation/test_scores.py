from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ftexp.evaluation.scores import ScoreKeeper, Scores
from ftexp.machine.distributed import ONE_PROCESS


def test_scores_over_uneven_batches_equal_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(23, 5, generator=generator)
    labels = torch.randint(0, 4, (23,), generator=generator)  # class 4 never occurs in the truth
    keeper = ScoreKeeper(5)
    for start in range(0, 23, 8):
        keeper.update(logits[start : start + 8], labels[start : start + 8])
    scores, not_finite = keeper.compute(ONE_PROCESS)
    assert not_finite == []
    predicted = logits.argmax(dim=1)
    assert scores.num_samples == 23
    assert scores.accuracy == pytest.approx((predicted == labels).double().mean().item())
    assert scores.ranks.tolist() == [int((row > row[k]).sum()) for row, k in zip(logits, labels, strict=True)]
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert scores.confusion.sum(axis=1).tolist() == torch.bincount(labels, minlength=5).tolist()
    assert scores.num_correct == int((predicted == labels).sum())
    assert scores.labels.tolist() == labels.tolist()
    assert scores.predictions.tolist() == predicted.tolist()


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    logits, labels = 300 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    keeper = ScoreKeeper(3)
    for start in (0, 8):
        keeper.update(logits[start : start + 8], labels[start : start + 8])
    scores, _ = keeper.compute(ONE_PROCESS)
    assert np.array_equal(scores.logits, logits.numpy())
    np.testing.assert_allclose(scores.probabilities, logits.softmax(1).numpy(), atol=1e-6)
    np.testing.assert_array_equal(scores.confidences, scores.probabilities.max(axis=1))
    assert 0 <= scores.metric("auroc") <= 1


def test_a_temperature_divides_the_logits() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 4.0]], np.float32)
    labels = np.array([0, 0])
    scores = Scores(labels, np.array([0, 1]), labels, np.zeros(2), 2, logits).at(2.0)
    sigmoid = 1 / (1 + np.exp(-np.array([1.0, 2.0])))
    np.testing.assert_allclose(scores.confidences, sigmoid, rtol=1e-6)
    np.testing.assert_allclose(scores.losses, -np.log([sigmoid[0], 1 - sigmoid[1]]), rtol=1e-6)
    assert scores.predictions.tolist() == [0, 1]


def test_samples_are_drawn_without_logits_where_no_metric_needs_them() -> None:
    labels = np.zeros(3, np.int64)
    scores = Scores(labels, labels, labels, np.zeros(3), 2, np.zeros((3, 2), np.float32))
    assert scores.needed_for(["top_5", "accuracy"]).logits is None
    assert scores.needed_for(["accuracy", "auroc"]) is scores


def test_a_class_without_a_logit_has_no_probability() -> None:
    scores = Scores(*[np.zeros(1, np.int64)] * 3, np.zeros(1), 2, np.array([[0, -np.inf]], np.float32))
    np.testing.assert_array_equal(scores.probabilities, [[1, 0]])
    assert replace(scores, logits=None).probabilities is None
    with pytest.raises(AssertionError, match="auroc needs logits"):
        replace(scores, logits=None).metric("auroc")
