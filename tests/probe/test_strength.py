"""The strength is chosen on validation, and the targets are those of torch's loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import scores_of
from torch.nn import functional as F

from ftexp import progress_lines
from ftexp.evaluation.scores import Scores
from ftexp.probe.logistic import TOLERANCE, LogisticProblem
from ftexp.probe.strength import PATIENCE, STRENGTHS, choose, soft_targets, solve_on_validation

GENERATOR = torch.Generator().manual_seed(0)
CENTRES = 0.3 * torch.randn(3, 12, generator=GENERATOR)
LABELS = torch.arange(240) % 3
FEATURES = CENTRES[LABELS] + 0.8 * torch.randn(240, 12, generator=GENERATOR)
TRUTH = [0, 1] * 50


def scored(wrong: int, losses: float | list[float]) -> Scores:
    """100 samples, of which the first ``wrong`` are predicted wrongly."""
    guesses = [1 - label if i < wrong else label for i, label in enumerate(TRUTH)]
    return replace(scores_of(TRUTH, guesses, 2), losses=np.broadcast_to(np.asarray(losses, float), 100).copy())


def test_the_metric_decides_where_it_is_clear() -> None:
    assert choose([scored(40, 0.1), scored(5, 0.9), scored(30, 0.2)], "accuracy") == 1


def test_within_noise_the_log_loss_decides() -> None:
    assert choose([scored(6, 0.9), scored(5, 0.9), scored(6, 0.2)], "accuracy") == 2


def test_within_noise_of_both_the_strongest_is_taken() -> None:
    noisy = [0.4 + 0.5 * (i % 2) for i in range(100)]
    assert choose([scored(6, 0.66), scored(6, noisy), scored(5, 0.66)], "accuracy") == 0


def test_log_loss_as_the_metric_is_minimised() -> None:
    assert choose([scored(5, 0.9), scored(20, 0.2), scored(5, 0.5)], "log_loss") == 1


def test_a_metric_that_is_not_defined_leaves_the_choice_to_the_log_loss() -> None:
    one_class = [replace(s, logits=np.zeros((100, 2), np.float32)) for s in (scored(9, 0.9), scored(9, 0.1))]
    alone = [s.take(np.arange(0, 100, 2)) for s in one_class]
    assert choose(alone, "auroc") == 1


def test_the_chosen_strength_is_solved_to_the_optimum_and_the_path_is_told() -> None:
    problem = LogisticProblem.of(FEATURES[:120], LABELS[:120], 3)
    chosen = solve_on_validation(problem, FEATURES[120:], LABELS[120:], "accuracy")
    best, path = chosen.solution, chosen.path
    assert [point.strength for point in path] == list(STRENGTHS[: len(path)])
    assert best.strength in STRENGTHS[: len(path)]
    assert best.duality_gap <= TOLERANCE * best.objective
    assert best.objective == pytest.approx(problem.solve(best.strength).objective, abs=1e-8)
    assert path[0].val_loss == pytest.approx(
        float(F.cross_entropy(problem.solve(STRENGTHS[0]).logits(FEATURES[120:]), LABELS[120:])), abs=1e-3
    )


def test_a_long_solve_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    problem = LogisticProblem.of(FEATURES[:120], LABELS[:120], 3)
    solve_on_validation(problem, FEATURES[120:], LABELS[120:], "accuracy")
    assert not caplog.messages
    monkeypatch.setattr(progress_lines, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(progress_lines, "PART_BETWEEN", 0)
    chosen = solve_on_validation(problem, FEATURES[120:], LABELS[120:], "accuracy")
    for number, point in enumerate(chosen.path, 1):
        of_point = [text for text in caplog.messages if f"strength {number} of" in text]
        begins = f"head    solving for strength {number} of at most 12: iteration "
        assert of_point == [f"{begins}{n + 1}" for n in range(point.iterations)]
    found = chosen.solution
    last = f"head    solving for strength {found.strength:.3g} to the optimum: iteration {found.iterations}"
    assert caplog.messages[-1] == last


def test_the_path_ends_once_validation_gets_no_better() -> None:
    shuffled = LABELS[torch.randperm(120, generator=GENERATOR)]
    problem = LogisticProblem.of(FEATURES[:120], shuffled, 3)
    path = solve_on_validation(problem, FEATURES[120:], LABELS[120:], "log_loss").path
    assert PATIENCE < len(path) < len(STRENGTHS)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 0.7, 2.0])], ids=["alike", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_targets_are_those_of_torchs_cross_entropy(weights: torch.Tensor | None, smoothing: float) -> None:
    logits = torch.randn(240, 3, generator=GENERATOR, dtype=torch.float64)
    targets = soft_targets(LABELS, 3, smoothing, weights)
    expected = F.cross_entropy(
        logits, LABELS, None if weights is None else weights.double(), reduction="sum", label_smoothing=smoothing
    )
    assert float(-(targets * logits.log_softmax(1)).sum()) == pytest.approx(float(expected))


def test_the_unit_of_a_part_does_not_matter_and_the_weights_are_for_the_features_as_given() -> None:
    units = torch.cat([torch.full((5,), 1e-3), torch.full((7,), 1e3)]).double()
    one, other = (
        LogisticProblem.of(features, LABELS, 3, parts=[5, 7]).solve(0.01)
        for features in (FEATURES.double(), FEATURES.double() * units + 5)
    )
    assert other.objective == pytest.approx(one.objective, abs=1e-9)
    torch.testing.assert_close(other.logits(FEATURES.double() * units + 5), one.logits(FEATURES.double()))


def test_within_a_part_features_keep_their_proportions() -> None:
    values = FEATURES.double()
    unit = float(values.var(dim=0, correction=0).mean().sqrt())
    whole = LogisticProblem.of(values, LABELS, 3, parts=[12]).solve(0.01)
    assert whole.objective == pytest.approx(LogisticProblem.of(values / unit, LABELS, 3).solve(0.01).objective)


def test_a_part_that_is_constant_has_no_say() -> None:
    constant = torch.cat([FEATURES, torch.full((240, 2), 7.1)], dim=1)
    solution = LogisticProblem.of(constant, LABELS, 3, parts=[12, 2]).solve(0.01)
    assert (solution.weight[:, -2:] == 0).all()
    assert solution.bias.isfinite().all()
