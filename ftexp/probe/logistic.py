"""Multinomial logistic regression with an L2 penalty: the optimum for a path of strengths, with a certificate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ftexp.probe.mean_loss import MeanLoss
from ftexp.probe.ridge import decompose
from ftexp.progress_lines import SpacedLines

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

Floats = npt.NDArray[np.float64]

MAX_ITERATIONS = 500
# The duality gap at which a solution counts as the optimum, as a share of the objective.
TOLERANCE = 1e-9
# The gap to which float32 goes before float64 takes over, as a share of the objective.
NEAR = 1e-6
# How often L-BFGS goes on with a tenth of the bound where the gap is still larger.
ROUNDS = 10
# Rows of features that are squared at a time.
ROWS = 4096


@dataclass(frozen=True, slots=True)
class Solution:
    """The head for one strength, and how near it is to the optimum.

    Attributes:
        strength: of the penalty ``strength / 2 * |W|^2``, which stands beside a mean over the samples.
        weight: float64 [C, D], for the features as they were given.
        bias: float64 [C].
        coordinates: float64 [C, K], the weight in the problem's coordinates, from which another solution can start.
        objective: the minimised mean loss with the penalty.
        loss: the mean loss alone.
        duality_gap: by how much the optimum may be lower at most; a certificate, whatever the solver did.
        gradient_norm: of the objective by weight and bias.
        iterations: of L-BFGS.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    coordinates: Tensor
    objective: float
    loss: float
    duality_gap: float
    gradient_norm: float
    iterations: int

    def logits(self, features: Tensor) -> Tensor:
        """Of features [N, D], in their dtype: [N, C]."""
        return features @ self.weight.T.to(features.dtype) + self.bias.to(features.dtype)


@dataclass(frozen=True, slots=True)
class LogisticProblem:
    """Minimise ``sum_i w_i CE(t_i, W x_i + b) + strength / 2 * |W|^2``, with weights that sum to 1.

    The features are centred and turned into the coordinates of their singular vectors, in which each coordinate is
    scaled by its curvature. The penalty does not change under a rotation, and L-BFGS then needs some ten to fifty
    iterations where it would need hundreds.

    Attributes:
        scores: float64 [N, K], the centred features in these coordinates.
        basis: float64 [D, K], the coordinates' directions, by the units of the features.
        mean: float64 [D], of the features, weighted.
        targets: float64 [N, C], rows that sum to 1.
        weights: float64 [N], summing to 1.
        curvatures: float64 [K], weighted mean squares of the scores.
    """

    scores: Tensor
    basis: Tensor
    mean: Tensor
    targets: Tensor
    weights: Tensor
    curvatures: Tensor

    @classmethod
    def of(
        cls,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        parts: Sequence[int] = (),
    ) -> LogisticProblem:
        """Set the problem up.

        Args:
            features: float [N, D].
            labels: int64 [N].
            num_classes: C.
            weights: float [N], above 0, such as those that balance the classes; None: all the same.
            label_smoothing: the share of the target that all classes divide among them.
            parts: see ``of_targets``.
        """
        hard = torch.nn.functional.one_hot(labels, num_classes).double()
        targets = hard * (1 - label_smoothing) + label_smoothing / num_classes
        return cls.of_targets(features, targets if weights is None else targets * weights[:, None], parts)

    @classmethod
    def of_targets(cls, features: Tensor, targets: Tensor, parts: Sequence[int] = ()) -> LogisticProblem:
        """Set the problem up for ``sum_ic t_ic -log p_ic``, up to a constant factor.

        Args:
            features: float [N, D].
            targets: float64 [N, C], at least 0; a row's sum is the sample's weight.
            parts: how many features belong together, one part after the other; the penalty is on the weights of
                features of which each part is divided by the root of its mean variance. Empty: of features as given.
        """
        sums = targets.sum(dim=1)
        shares = sums / sums.sum()
        values = features.to(torch.float64, copy=True)  # centred in place: there may be hundreds of MiB
        mean = shares @ values
        values -= mean
        units = _units(_mean_squares(values, shares), parts)
        values /= units
        scores, singular, right = decompose(values)
        scores *= singular
        curvatures = _mean_squares(scores, shares)
        return cls(scores, right / units[:, None], mean, targets / sums[:, None], shares, curvatures)

    def path(self, strengths: Sequence[float], tolerance: float) -> Iterator[Solution]:
        """Solve for one strength after the other in float32; give the strongest first.

        Each starts from where the last two solutions point to, by the logarithm of the strength.

        Args:
            strengths: above 0.
            tolerance: the duality gap to reach, as a share of the objective; float32 has its limit near 1e-6.
        """
        loss, lines = self._loss(torch.float32), SpacedLines("head")
        before: list[Solution] = []
        for number, strength in enumerate(strengths, 1):
            told = partial(lines.say, f"solving for strength {number} of at most {len(strengths)}: iteration %d")
            solution = self._minimise(strength, *self._start(strength, before), loss, tolerance, 1, told)
            before = [*before[-1:], solution]
            yield solution

    def solve(self, strength: float, start: Solution | None = None) -> Solution:
        """Solve for one strength, above 0, to the optimum, from another solution of this problem or from zero."""
        point, lines = self._start(strength, [] if start is None else [start]), SpacedLines("head")
        told = partial(lines.say, f"solving for strength {strength:.3g} to the optimum: iteration %d")
        near = self._minimise(strength, *point, self._loss(torch.float32), NEAR, 1, told)
        point = self._start(strength, [near])
        found = self._minimise(
            strength, *point, self._loss(torch.float64), TOLERANCE, ROUNDS, lambda done: told(near.iterations + done)
        )
        return replace(found, iterations=near.iterations + found.iterations)

    def _loss(self, dtype: torch.dtype) -> MeanLoss:
        return MeanLoss(self.scores.to(dtype), self.targets.to(dtype), self.weights.to(dtype))

    def _start(self, strength: float, before: Sequence[Solution]) -> tuple[Tensor, Tensor]:
        """Where to start: weight and bias in the problem's coordinates."""
        if not before:
            zero = torch.zeros(self.targets.shape[1], self.scores.shape[1], dtype=torch.float64)
            return zero, (self.weights @ self.targets).clamp_min(1e-12).log()
        last = before[-1]
        weight, bias = last.coordinates, last.bias + last.weight @ self.mean
        if len(before) < 2:
            return weight, bias
        earlier = before[-2]
        steps = math.log(strength / last.strength) / math.log(last.strength / earlier.strength)
        return (
            weight + steps * (weight - earlier.coordinates),
            bias + steps * (bias - earlier.bias - earlier.weight @ self.mean),
        )

    def _minimise(
        self,
        strength: float,
        weight: Tensor,
        bias: Tensor,
        loss: MeanLoss,
        tolerance: float,
        rounds: int,
        told: Callable[[int], None],
    ) -> Solution:
        from scipy.optimize import (
            minimize,  # takes a quarter of a second, and a head that is not solved has no use for it
        )

        num_classes = len(bias)
        # Of softmax, the curvature by a logit is p (1 - p) at most; at the start all classes are equally likely.
        spread = (1 - 1 / num_classes) / num_classes
        scale = torch.cat([(self.curvatures * spread + strength).sqrt(), torch.tensor([spread**0.5]).double()])
        latest = torch.zeros(0)

        def value_and_gradient(point: Floats) -> tuple[float, Floats]:
            nonlocal latest
            both = torch.from_numpy(point).view(num_classes, -1) / scale
            value, by_weight, by_bias = loss(both[:, :-1], both[:, -1])
            latest = torch.cat([by_weight.add_(both[:, :-1], alpha=strength), by_bias[:, None]], dim=1)
            return value + strength / 2 * float(both[:, :-1].square().sum()), (latest / scale).flatten().numpy()

        done = count(1)

        def stop(intermediate_result: OptimizeResult) -> None:
            told(next(done))
            # The gap as in ``_certified``, and what a better bias may gain.
            gap = float(latest[:, :-1].square().sum()) / strength + float(latest[:, -1].square().sum()) / spread
            if gap / 2 <= bound * intermediate_result.fun:
                raise StopIteration

        point = (torch.cat([weight, bias[:, None]], dim=1) * scale).flatten().numpy()
        options = {"maxiter": MAX_ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 10}
        bound, iterations = 0.8 * tolerance, 0
        for _ in range(rounds):
            found = minimize(value_and_gradient, point, jac=True, method="L-BFGS-B", options=options, callback=stop)
            point, iterations = found.x, iterations + int(found.nit)
            both = torch.from_numpy(point).view(num_classes, -1) / scale
            solution = self._certified(strength, both[:, :-1].clone(), both[:, -1], loss, iterations)
            if solution.duality_gap <= tolerance * solution.objective or found.nit == 0 or iterations >= MAX_ITERATIONS:
                break
            bound /= 10
        return solution

    def _certified(self, strength: float, weight: Tensor, bias: Tensor, loss: MeanLoss, iterations: int) -> Solution:
        """The solution with the bias that is best beside this weight, and its duality gap.

        For probabilities q with ``sum_i w_i (t_i - q_i) = 0``, as the best bias gives them, the dual objective
        ``sum_i w_i H(q_i) - |V|^2 / (2 strength)``, with the entropy H and ``V = sum_i w_i (t_i - q_i) x_i``, is a
        lower bound of the optimum. With the gradient ``G = strength W - V``, the gap is ``|G|^2 / (2 strength)``.
        """
        bias = loss.best_bias(weight, bias)
        value, by_weight, by_bias = loss(weight, bias)
        squares = float((by_weight + strength * weight).square().sum())
        full = weight @ self.basis.T
        return Solution(
            strength,
            full,
            bias - full @ self.mean,
            weight,
            value + strength / 2 * float(weight.square().sum()),
            value,
            squares / (2 * strength),
            float((squares + by_bias.square().sum()) ** 0.5),
            iterations,
        )


def _units(variances: Tensor, parts: Sequence[int]) -> Tensor:
    """What each feature is divided by, from its variance: float64 [D]."""
    if not parts:
        return torch.ones_like(variances)
    units = torch.cat([part.mean().sqrt().expand(len(part)) for part in torch.split(variances, list(parts))])
    return torch.where(units > 1e-12 * units.max(), units, torch.inf)  # a part that is constant has no say


def _mean_squares(values: Tensor, shares: Tensor) -> Tensor:
    """Weighted means of squares over the samples, float64 [D], in parts: a copy of all would take much memory."""
    parts = zip(torch.split(values, ROWS), torch.split(shares, ROWS), strict=True)
    return torch.stack([share @ part.square() for part, share in parts]).sum(dim=0)
