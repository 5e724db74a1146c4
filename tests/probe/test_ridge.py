"""The ridge solution is scikit-learn's, and leaving samples out is leaving them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.utils.flop_counter import FlopCounterMode

from ftexp.probe.ridge import RidgePath

N, D, C = 60, 12, 3
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64) * torch.linspace(0.1, 3, D)
LABELS = (FEATURES[:, :C] + torch.randn(N, C, generator=GENERATOR)).argmax(1)
WEIGHTS = torch.rand(N, generator=GENERATOR, dtype=torch.float64) + 0.5
STRENGTHS = [1e-3, 1.0, 100.0]


def reference(rows: np.ndarray, strength: float, weights: torch.Tensor | None) -> Ridge:
    """scikit-learn's on some rows; our weights sum to the number of all samples."""
    scaled = None if weights is None else (weights / weights.sum() * N).numpy()[rows]
    indicators = np.eye(C)[LABELS.numpy()[rows]]
    return Ridge(alpha=strength, tol=1e-12).fit(FEATURES.numpy()[rows], indicators, sample_weight=scaled)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_the_solution_is_scikit_learns(strength: float, weights: torch.Tensor | None) -> None:
    weight, bias = RidgePath.of(FEATURES, LABELS, C, weights).solve(strength)
    expected = reference(np.arange(N), strength, weights)
    np.testing.assert_allclose(weight, expected.coef_, atol=1e-9)
    np.testing.assert_allclose(bias, expected.intercept_, atol=1e-9)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_leaving_one_out_is_the_brute_force(strength: float, weights: torch.Tensor | None) -> None:
    outputs = RidgePath.of(FEATURES, LABELS, C, weights).leave_one_out(strength)
    for sample in range(N):
        rest = np.delete(np.arange(N), sample)
        expected = reference(rest, strength, weights).predict(FEATURES[sample : sample + 1].numpy())[0]
        np.testing.assert_allclose(outputs[sample], expected, atol=1e-8)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_leaving_groups_out_is_the_brute_force(weights: torch.Tensor | None) -> None:
    groups = np.random.default_rng(0).integers(0, 15, N)
    outputs = RidgePath.of(FEATURES, LABELS, C, weights).leave_groups_out(1.0, groups)
    for group in np.unique(groups):
        inside = groups == group
        expected = reference(np.flatnonzero(~inside), 1.0, weights).predict(FEATURES.numpy()[inside])
        np.testing.assert_allclose(outputs[torch.from_numpy(inside)], expected, atol=1e-8)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_groups_with_more_samples_than_features_are_left_out_as_well(weights: torch.Tensor | None) -> None:
    groups = np.repeat([0, 1, 2], [D + 1, D + 2, N - 2 * D - 3])
    outputs = RidgePath.of(FEATURES, LABELS, C, weights).leave_groups_out(1e-3, groups)
    for group in range(3):
        inside = groups == group
        expected = reference(np.flatnonzero(~inside), 1e-3, weights).predict(FEATURES.numpy()[inside])
        np.testing.assert_allclose(outputs[torch.from_numpy(inside)], expected, atol=1e-8)


def test_a_large_group_takes_no_system_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 5_000
    features = torch.randn(many + 500, D, generator=GENERATOR, dtype=torch.float64)
    labels = (features[:, :C] + torch.randn(len(features), C, generator=GENERATOR)).argmax(1)
    groups = torch.arange(len(features)).sub(many).clamp(min=0)
    sizes, solved = [], torch.linalg.solve
    monkeypatch.setattr(torch.linalg, "solve", lambda a, b: sizes.append(len(a)) or solved(a, b))
    outputs = RidgePath.of(features, labels, C).leave_groups_out(1.0, groups)
    assert sizes == [D + 1]
    outside = groups > 0
    head = Ridge(alpha=1.0, tol=1e-12).fit(features[outside].numpy(), np.eye(C)[labels[outside].numpy()])
    np.testing.assert_allclose(outputs[~outside], head.predict(features[~outside].numpy()), atol=1e-8)


def test_without_the_only_group_the_shares_of_the_classes_are_left() -> None:
    shares = np.bincount(LABELS, minlength=C) / N
    outputs = RidgePath.of(FEATURES, LABELS, C).leave_groups_out(1e-3, [0] * N)
    np.testing.assert_allclose(outputs, np.tile(shares, (N, 1)), atol=1e-12)


def test_groups_of_one_are_leaving_one_out() -> None:
    path = RidgePath.of(FEATURES, LABELS, C)
    torch.testing.assert_close(path.leave_groups_out(1.0, range(N)), path.leave_one_out(1.0), atol=1e-10, rtol=0)


def test_more_features_than_samples_and_features_that_are_constant() -> None:
    wide = torch.randn(20, 50, generator=GENERATOR, dtype=torch.float64)
    wide[:, 0] = 7
    path = RidgePath.of(wide, LABELS[:20], C)
    expected = Ridge(alpha=1.0, tol=1e-12).fit(wide.numpy(), np.eye(C)[LABELS[:20].numpy()])
    np.testing.assert_allclose(path.solve(1.0)[0], expected.coef_, atol=1e-9)
    assert path.leave_one_out(1.0).isfinite().all()


def test_the_grid_reaches_from_nothing_learnt_to_nothing_shrunk() -> None:
    path = RidgePath.of(FEATURES, LABELS, C)
    grid = path.strengths()
    assert (grid.diff() < 0).all()
    strongest, weakest = (path.solve(float(strength))[0] for strength in (grid[0], grid[-1]))
    least_squares = Ridge(alpha=1e-12).fit(FEATURES.numpy(), np.eye(C)[LABELS.numpy()]).coef_
    np.testing.assert_allclose(weakest, least_squares, atol=1e-4)
    assert strongest.norm() < 0.02 * weakest.norm()


def test_a_strength_takes_one_product_of_all_samples_by_all_classes() -> None:
    path = RidgePath.of(FEATURES, LABELS, C)
    with FlopCounterMode(display=False) as counter:
        path.leave_one_out(1.0)
    assert counter.get_total_flops() == 2 * N * D * C
