"""The strength of the penalty, chosen on the validation set along a path of solutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.evaluation.intervals import drawn_times
from ftexp.evaluation.scores import ScoreKeeper, Scores
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.metric_names import METRICS
from ftexp.probe.logistic import LogisticProblem, Solution

# For features whose mean variance is 1 and a mean loss, from the strongest: two steps a decade. On the five sets of
# benchmarks/results.md, "The solved head", the chosen ones are 3 to 1e-3.
STRENGTHS = tuple(10 ** (0.5 - step / 2) for step in range(12))
# Solutions on the path are near enough to the optimum for the choice; the chosen one is then solved to the end.
PATH_TOLERANCE = 1e-4
# The path ends after this many strengths in a row that improve neither the metric nor, beyond noise, the log loss.
PATIENCE = 3
RESAMPLES = 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PathPoint:
    """One strength on the path.

    Attributes:
        strength: of the penalty.
        train_loss: the mean training loss, without the penalty.
        val_loss: the mean cross-entropy on the validation set.
        val_metric: the metric by which the strength is chosen, on the validation set.
        duality_gap: by how much the objective may lie above its optimum at most.
        iterations: of L-BFGS, from the solution of the strength before.
    """

    strength: float
    train_loss: float
    val_loss: float
    val_metric: float
    duality_gap: float
    iterations: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The solution for the chosen strength, at its optimum, and the path on which it was chosen.

    Attributes:
        solution: the solution.
        metric: by which the strength was chosen.
        path: one point for every strength that was tried, the strongest first.
    """

    solution: Solution
    metric: str
    path: tuple[PathPoint, ...]


def solve_on_validation(
    problem: LogisticProblem,
    val_features: Tensor,
    val_labels: Tensor,
    metric: str,
    strengths: Sequence[float] = STRENGTHS,
) -> Chosen:
    """Solve along the path of strengths, choose one on the validation set, and solve for it to the optimum.

    Args:
        problem: the training set.
        val_features: float32 [M, D].
        val_labels: int64 [M].
        metric: the name of a metric in ``METRICS``.
        strengths: the strongest first.
    """
    solutions: list[Solution] = []
    scored: list[Scores] = []
    for solution in problem.path(strengths, PATH_TOLERANCE):
        solutions.append(solution)
        scored.append(score_logits(solution.logits(val_features), val_labels).needed_for([metric]))
        if _has_passed_its_best(scored, metric):
            break
    path = tuple(_point(solution, scores, metric) for solution, scores in zip(solutions, scored, strict=True))
    number = choose(scored, metric)
    return Chosen(problem.solve(solutions[number].strength, solutions[number]), metric, path)


def score_logits(logits: Tensor, labels: Tensor) -> Scores:
    """The scores of logits float [M, C] against labels int64 [M]."""
    keeper = ScoreKeeper(logits.shape[1])
    keeper.update(logits, labels)
    return keeper.compute(ONE_PROCESS)[0]


def choose(scored: Sequence[Scores], metric: str) -> int:
    """The number of the strength to take.

    First those whose metric is within noise of the best one, which is one standard error of their difference; of these
    the strongest whose log loss is within noise of the lowest. The metric alone moves in steps of whole images: on 80
    images, its best value picks a strength almost at random.

    Args:
        scored: the validation scores for each strength, the strongest first.
        metric: the name of a metric in ``METRICS``.
    """
    gains = [METRICS[metric].gain(0.0, scores.metric(metric)) for scores in scored]
    if np.isnan(gains).all():
        metric, gains = "log_loss", [-scores.loss for scores in scored]
    best = int(np.nanargmax(gains))
    noise = _noise(scored, best, metric)
    near = [i for i, gain in enumerate(gains) if gains[best] - gain <= noise[i]]
    lowest = min(near, key=lambda i: scored[i].loss)
    return next(i for i in near if scored[i].loss - scored[lowest].loss <= _loss_noise(scored[i], scored[lowest]))


def _loss_noise(one: Scores, other: Scores) -> float:
    """Standard error of the difference of two log losses on the same samples."""
    return float(np.std(one.losses - other.losses) / max(len(one.losses) - 1, 1) ** 0.5)


def _noise(scored: Sequence[Scores], best: int, metric: str) -> Floats:
    """Standard errors of the differences of a metric from that of the best one, by a paired bootstrap: [strengths]."""
    drawn = drawn_times(np.arange(scored[best].num_samples), RESAMPLES, seed=0)
    values = np.concatenate([[scores.resampled(metric, times) for scores in scored] for times in drawn], axis=1)
    with np.errstate(invalid="ignore"):  # resamples without one of the classes, for which the metric is not defined
        noise: Floats = np.nan_to_num(np.nanstd(values[best] - values, axis=1))
    return noise


def _has_passed_its_best(scored: Sequence[Scores], metric: str) -> bool:
    gains = [METRICS[metric].gain(0.0, scores.metric(metric)) for scores in scored]
    earlier, late = scored[:-PATIENCE], scored[-PATIENCE:]
    if not earlier:
        return False
    lowest = min(earlier, key=lambda scores: scores.loss)
    return max(gains[-PATIENCE:]) <= max(gains[:-PATIENCE]) and all(
        lowest.loss - scores.loss <= _loss_noise(scores, lowest) for scores in late
    )


def _point(solution: Solution, scores: Scores, metric: str) -> PathPoint:
    return PathPoint(
        solution.strength,
        solution.loss,
        scores.loss,
        scores.metric(metric),
        solution.duality_gap,
        solution.iterations,
    )


def soft_targets(
    labels: Tensor, num_classes: int, smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """The targets for which the problem's loss is torch's cross-entropy, up to a constant: float64 [N, C].

    With class weights, torch weights the smoothed part of a target by the class that it goes to.

    Args:
        labels: int64 [N].
        num_classes: C.
        smoothing: the share of every target that is spread evenly over all classes.
        class_weights: float [C]; None: all the same.
    """
    hard = torch.nn.functional.one_hot(labels, num_classes).double()
    targets = hard * (1 - smoothing) + smoothing / num_classes
    return targets if class_weights is None else targets * class_weights.double()
