"""The logistic optimum is scikit-learn's, and its certificate holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeResult, minimize
from sklearn.linear_model import LogisticRegression

from ftexp.probe.logistic import TOLERANCE, LogisticProblem, Solution

N, D, C = 200, 15, 4
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64) * torch.logspace(-2, 1, D) + 3
LABELS = (FEATURES[:, -C:] - 3 + 8 * torch.randn(N, C, generator=GENERATOR)).argmax(1)
EQUAL = torch.ones(N, dtype=torch.float64)
WEIGHTS = torch.rand(N, generator=GENERATOR, dtype=torch.float64) + 0.5


def mean_loss(weight: torch.Tensor, bias: torch.Tensor, weights: torch.Tensor, smoothing: float = 0.0) -> float:
    losses = torch.nn.functional.cross_entropy(
        FEATURES @ weight.T + bias, LABELS, reduction="none", label_smoothing=smoothing
    )
    return float((weights / weights.sum()) @ losses)


def objective(solution: Solution, weights: torch.Tensor, smoothing: float = 0.0) -> float:
    penalty = solution.strength / 2 * float(solution.weight.square().sum())
    return mean_loss(solution.weight, solution.bias, weights, smoothing) + penalty


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_the_optimum_is_scikit_learns(strength: float, weights: torch.Tensor | None) -> None:
    solution = LogisticProblem.of(FEATURES, LABELS, C, weights).solve(strength)
    given = EQUAL if weights is None else weights
    shares = (given / given.sum() * N).numpy()
    other = LogisticRegression(C=1 / (strength * N), tol=1e-10, max_iter=100_000)
    other.fit(FEATURES.numpy(), LABELS.numpy(), sample_weight=shares)
    penalty = strength / 2 * float((other.coef_**2).sum())
    expected = mean_loss(torch.from_numpy(other.coef_), torch.from_numpy(other.intercept_), given) + penalty
    assert objective(solution, given) == pytest.approx(solution.objective, abs=1e-12)
    assert solution.objective == pytest.approx(expected, abs=1e-6)
    assert solution.objective <= expected + 1e-9
    assert solution.duality_gap < 1e-8


def test_the_gap_bounds_the_distance_from_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    best = LogisticProblem.of(FEATURES, LABELS, C).solve(1e-3)
    monkeypatch.setattr("ftexp.probe.logistic.NEAR", float("inf"))
    for iterations in (1, 2, 4):
        monkeypatch.setattr("ftexp.probe.logistic.MAX_ITERATIONS", iterations)
        early = LogisticProblem.of(FEATURES, LABELS, C).solve(1e-3)
        assert early.objective - best.objective <= early.duality_gap + 1e-12
        assert early.duality_gap > 1e-7


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gap_is_the_distance_from_the_dual_objective(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    monkeypatch.setattr("ftexp.probe.logistic.NEAR", float("inf"))
    monkeypatch.setattr("ftexp.probe.logistic.MAX_ITERATIONS", 1)
    early = LogisticProblem.of(FEATURES, LABELS, C, label_smoothing=smoothing).solve(0.1)
    targets = torch.nn.functional.one_hot(LABELS, C).double() * (1 - smoothing) + smoothing / C
    probabilities = early.logits(FEATURES).softmax(dim=1)
    weight = (targets - probabilities).T @ FEATURES / N
    entropy = -float((probabilities * probabilities.log()).sum()) / N
    dual = entropy - float(weight.square().sum()) / (2 * 0.1)
    assert early.duality_gap == pytest.approx(early.objective - dual, rel=1e-6)


def test_label_smoothing_is_torchs() -> None:
    solution = LogisticProblem.of(FEATURES, LABELS, C, label_smoothing=0.1).solve(1e-3)
    assert objective(solution, EQUAL, 0.1) == pytest.approx(solution.objective, abs=1e-12)
    best = mean_loss(solution.weight, solution.bias, EQUAL, 0.1)
    for step in 1e-3 * torch.randn(5, C, generator=GENERATOR, dtype=torch.float64):
        assert mean_loss(solution.weight, solution.bias + step, EQUAL, 0.1) >= best


def test_a_path_in_float32_ends_where_single_solutions_do() -> None:
    problem = LogisticProblem.of(FEATURES, LABELS, C)
    strengths = [1.0, 0.1, 0.01, 1e-3]
    for near in problem.path(strengths, 1e-5):
        best = problem.solve(near.strength)
        assert near.duality_gap <= 1e-5 * near.objective
        assert -1e-7 <= near.objective - best.objective <= 1e-5 * best.objective
        assert problem.solve(near.strength, near).iterations < best.iterations


def test_a_path_goes_on_from_where_it_is() -> None:
    problem, strengths = LogisticProblem.of(FEATURES, LABELS, C), [0.1, 0.03, 0.01, 3e-3, 1e-3]
    together = [solution.iterations for solution in problem.path(strengths, 1e-5)]
    alone = [next(problem.path([strength], 1e-5)).iterations for strength in strengths]
    assert sum(together[2:]) < 0.8 * sum(alone[2:])


def test_what_lbfgs_ends_too_early_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_few_iterations(*arguments: Any, options: dict[str, Any], **more: Any) -> OptimizeResult:
        return minimize(*arguments, options={**options, "maxiter": 6}, **more)

    monkeypatch.setattr("scipy.optimize.minimize", in_few_iterations)
    solution = LogisticProblem.of(FEATURES, LABELS, C).solve(1e-3)
    assert solution.iterations > 12
    assert solution.duality_gap <= TOLERANCE * solution.objective


def test_scales_of_the_features_hardly_matter_to_the_solver() -> None:
    iterations = LogisticProblem.of(FEATURES * torch.logspace(-3, 3, D), LABELS, C).solve(1e-6).iterations
    assert iterations < 200


def test_more_features_than_samples() -> None:
    wide = torch.randn(30, 80, generator=GENERATOR, dtype=torch.float64)
    solution = LogisticProblem.of(wide, LABELS[:30], C).solve(1e-3)
    assert ((wide @ solution.weight.T + solution.bias).argmax(1) == LABELS[:30]).all()
    assert solution.duality_gap < 1e-8


def test_a_class_without_samples_stays_improbable() -> None:
    solution = LogisticProblem.of(FEATURES, LABELS, C + 1).solve(1e-2)
    assert np.isfinite(solution.objective)
    assert (FEATURES @ solution.weight.T + solution.bias).softmax(1)[:, C].max() < 1e-4
