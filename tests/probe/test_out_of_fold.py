"""Probabilities of what no head has seen are those of heads that have not seen it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_features import clouds
from scipy.special import softmax
from sklearn.linear_model import Ridge

from ftexp.evaluation.calibration import negative_log_likelihood, tempered
from ftexp.probe import out_of_fold as module
from ftexp.probe.features import Features
from ftexp.probe.out_of_fold import best_temperature, fit_head, out_of_fold


def test_they_are_those_of_heads_trained_without_the_group() -> None:
    whole = replace(clouds(30, distance=1.5), groups=torch.arange(30) // 4)
    found = out_of_fold(whole)
    values, indicators = whole.values.double().numpy(), np.eye(3)[whole.labels.numpy()]
    expected = np.empty((30, 3))
    for group in range(whole.num_groups):
        out = whole.groups.numpy() == group
        head = Ridge(alpha=found.strength, tol=1e-12).fit(values[~out], indicators[~out])
        expected[out] = head.predict(values[out])
    np.testing.assert_allclose(found.probabilities, softmax(expected / found.temperature, axis=1), atol=1e-8)
    labels = whole.labels.numpy()
    assert found.log_loss == pytest.approx(-np.log(found.probabilities[np.arange(30), labels]).mean())


def test_a_copy_in_the_same_group_does_not_vouch_for_a_label() -> None:
    whole = clouds(40, num_classes=2, distance=1.0)
    values, labels = whole.values.clone(), whole.labels.clone()
    values[20:] = values[:20]  # each image twice, with one label drawn at random: nothing is learnt from others
    labels[:20] = torch.randint(2, (20,), generator=torch.Generator().manual_seed(1))
    labels[20:] = labels[:20]
    of_a_pair = 20 * torch.eye(20).repeat(2, 1)  # by which a head knows the copy again
    values = torch.cat([values, of_a_pair], dim=1)
    alone = replace(whole, values=values, labels=labels)
    together = replace(alone, groups=torch.arange(40) % 20)

    def right(features: Features) -> float:
        return float(np.mean(out_of_fold(features).probabilities.argmax(axis=1) == labels.numpy()))

    assert right(alone) == 1.0
    assert right(together) < 0.7


def test_probabilities_are_those_of_one_strength_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of every strength, in memory at once, would be thirteen times as many."""
    whole, made = clouds(30, distance=1.5), []
    monkeypatch.setattr(module, "tempered", lambda *given: made.append(given[1]) or tempered(*given))
    found = out_of_fold(whole)
    assert made == [found.temperature]
    head = fit_head(whole)
    assert made == [found.temperature]  # a head needs none
    assert (head.strength, head.temperature) == (found.strength, found.temperature)


def test_the_temperature_is_the_likeliest_and_bounded() -> None:
    outputs = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    best = best_temperature(outputs, labels)
    loss = negative_log_likelihood(outputs, labels, best)
    assert all(loss < negative_log_likelihood(outputs, labels, best * factor) for factor in (0.9, 1.1))
    assert 0.02 <= best_temperature(outputs, outputs.argmax(axis=1)) < 0.021
