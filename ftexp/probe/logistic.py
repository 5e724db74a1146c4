"""Multinomial logistic regression with an L2 penalty: the optimum for a path of strengths, with a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from ftexp.probe.ridge import decompose

Floats = npt.NDArray[np.float64]

MAX_ITERATIONS = 500
# Of the gradient in the scaled coordinates, in which curvatures are about 1.
GRADIENT_TOLERANCE = 1e-8


@dataclass(frozen=True, slots=True)
class Solution:
    """The head for one strength, and how near it is to the optimum.

    Attributes:
        strength: of the penalty ``strength / 2 * |W|^2``, which stands beside a mean over the samples.
        weight: float64 [C, D].
        bias: float64 [C].
        objective: the minimised mean loss with the penalty.
        duality_gap: by how much the optimum may be lower at most; a certificate, whatever the solver did.
        gradient_norm: of the objective by weight and bias.
        iterations: of L-BFGS.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    objective: float
    duality_gap: float
    gradient_norm: float
    iterations: int


@dataclass(frozen=True, slots=True)
class LogisticProblem:
    """Minimise ``sum_i w_i CE(t_i, W x_i + b) + strength / 2 * |W|^2``, with weights that sum to 1.

    The features are centred and turned into the coordinates of their singular vectors, in which each coordinate is
    scaled by its curvature. The penalty does not change under a rotation, and L-BFGS then needs some ten to fifty
    iterations where it would need hundreds.

    Attributes:
        scores: float64 [N, K], the centred features in these coordinates.
        basis: float64 [D, K], the coordinates' directions.
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
    ) -> LogisticProblem:
        """Set the problem up.

        Args:
            features: float [N, D].
            labels: int64 [N].
            num_classes: C.
            weights: float [N], above 0, such as those that balance the classes; None: all the same.
            label_smoothing: the share of the target that all classes divide among them.
        """
        values = features.double()
        given = torch.ones(len(values), dtype=torch.float64) if weights is None else weights.double()
        shares = given / given.sum()
        mean = shares @ values
        left, singular, right = decompose(values - mean)
        scores = left * singular
        hard = torch.nn.functional.one_hot(labels, num_classes).double()
        targets = hard * (1 - label_smoothing) + label_smoothing / num_classes
        return cls(scores, right, mean, targets, shares, shares @ scores.square())

    def path(self, strengths: Sequence[float]) -> Iterator[Solution]:
        """Solve for one strength after the other, each from the solution before; give the strongest first."""
        num_classes = self.targets.shape[1]
        weight = torch.zeros(num_classes, self.scores.shape[1], dtype=torch.float64)
        bias = (self.weights @ self.targets).clamp_min(1e-12).log()
        for strength in strengths:
            weight, bias, iterations = self._minimise(strength, weight, bias)
            yield self._certified(strength, weight, bias, iterations)

    def solve(self, strength: float) -> Solution:
        """Solve for one strength, above 0."""
        return next(self.path([strength]))

    def _minimise(self, strength: float, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, int]:
        num_classes = len(bias)
        # Of softmax, the curvature by a logit is p (1 - p) at most; at the start all classes are equally likely.
        spread = (1 - 1 / num_classes) / num_classes
        scale = torch.cat([(self.curvatures * spread + strength).sqrt(), torch.tensor([spread**0.5]).double()])

        def value_and_gradient(point: Floats) -> tuple[float, Floats]:
            both = torch.from_numpy(point).view(num_classes, -1) / scale
            value, by_weight, by_bias = self._objective(strength, both[:, :-1], both[:, -1])
            gradient = torch.cat([by_weight, by_bias[:, None]], dim=1) / scale
            return value, gradient.flatten().numpy()

        start = (torch.cat([weight, bias[:, None]], dim=1) * scale).flatten().numpy()
        options = {"maxiter": MAX_ITERATIONS, "gtol": GRADIENT_TOLERANCE, "ftol": 1e-15, "maxcor": 20}
        found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        both = torch.from_numpy(found.x).view(num_classes, -1) / scale
        return both[:, :-1].clone(), both[:, -1].clone(), int(found.nit)

    def _objective(self, strength: float, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """Value, and gradients by weight [C, K] and bias [C]."""
        logits = self.scores @ weight.T + bias
        normaliser = logits.logsumexp(dim=1)
        loss = self.weights @ (normaliser - (self.targets * logits).sum(dim=1))
        excess = ((logits - normaliser[:, None]).exp() - self.targets) * self.weights[:, None]
        value = float(loss + strength / 2 * weight.square().sum())
        return value, excess.T @ self.scores + strength * weight, excess.sum(dim=0)

    def _certified(self, strength: float, weight: Tensor, bias: Tensor, iterations: int) -> Solution:
        bias = self._best_bias(weight, bias)
        objective, by_weight, by_bias = self._objective(strength, weight, bias)
        gap = objective - self._dual(strength, weight, bias)
        full = weight @ self.basis.T
        norm = float((by_weight.square().sum() + by_bias.square().sum()).sqrt())
        return Solution(strength, full, bias - full @ self.mean, objective, max(gap, 0.0), norm, iterations)

    def _dual(self, strength: float, weight: Tensor, bias: Tensor) -> float:
        """A lower bound of the optimum: the dual objective at the probabilities of this solution.

        For probabilities q with ``sum_i w_i (t_i - q_i) = 0`` it is ``sum_i w_i H(q_i) - |V|^2 / (2 strength)``, with
        the entropy H and ``V = sum_i w_i (t_i - q_i) x_i``. The condition holds at the best bias.
        """
        logs = (self.scores @ weight.T + bias).log_softmax(dim=1)
        probabilities = logs.exp()
        entropy = self.weights @ -(probabilities * logs).sum(dim=1)
        pull = ((self.targets - probabilities) * self.weights[:, None]).T @ self.scores
        return float(entropy - pull.square().sum() / (2 * strength))

    def _best_bias(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The bias that is best beside this weight, by Newton's method."""
        logits = self.scores @ weight.T
        for _ in range(20):
            probabilities = (logits + bias).softmax(dim=1)
            gradient = self.weights @ (probabilities - self.targets)
            if gradient.abs().max() < 1e-15:
                break
            weighted = probabilities * self.weights[:, None]
            curvature = weighted.sum(dim=0).diag() - weighted.T @ probabilities
            # A constant may be added to all of the bias; the ones keep the matrix regular.
            bias = bias - torch.linalg.solve(curvature + 1 / len(bias), gradient)
        return bias
