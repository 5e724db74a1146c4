from __future__ import annotations

import numpy as np
import pytest
import torch

from ftexp.evaluation.scores import ScoreKeeper
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
    assert scores.probabilities is None
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert scores.confusion.sum(axis=1).tolist() == torch.bincount(labels, minlength=5).tolist()
    assert scores.num_correct == int((predicted == labels).sum())
    assert scores.labels.tolist() == labels.tolist()
    assert scores.predictions.tolist() == predicted.tolist()


def test_probabilities_are_kept_where_a_metric_needs_them() -> None:
    logits, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
    keeper = ScoreKeeper(3, ["accuracy", "auroc"])
    for start in (0, 8):
        keeper.update(logits[start : start + 8], labels[start : start + 8])
    scores, _ = keeper.compute(ONE_PROCESS)
    assert scores.probabilities is not None
    assert np.allclose(scores.probabilities, logits.softmax(1).numpy())
    assert 0 <= scores.metric("auroc") <= 1


def test_a_metric_that_was_not_requested_is_an_error() -> None:
    keeper = ScoreKeeper(2, ["accuracy"])
    keeper.update(torch.zeros(2, 2), torch.arange(2))
    with pytest.raises(AssertionError, match="auroc needs probabilities"):
        keeper.compute(ONE_PROCESS)[0].metric("auroc")
