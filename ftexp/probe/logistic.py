"""Multinomial logistic regression with an L2 penalty: the optimum for a path of strengths, with a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from ftexp.probe.ridge import decompose

Floats = npt.NDArray[np.float64]

MAX_ITERATIONS = 500
# The duality gap at which a solution counts as the optimum, as a share of the objective.
TOLERANCE = 1e-9
# How often L-BFGS goes on with a tenth of the bound where the gap is still larger.
ROUNDS = 10


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
        units = _units(shares @ values.square(), parts)
        values /= units
        scores, singular, right = decompose(values)
        scores *= singular
        return cls(scores, right / units[:, None], mean, targets / sums[:, None], shares, shares @ scores.square())

    def path(self, strengths: Sequence[float], tolerance: float = TOLERANCE) -> Iterator[Solution]:
        """Solve for one strength after the other, each from the solution before; give the strongest first.

        Args:
            strengths: above 0.
            tolerance: the duality gap to reach, as a share of the objective. From 1e-6 on, products are computed in
                float32, which halves the time.
        """
        num_classes = self.targets.shape[1]
        scores = self.scores.float() if tolerance >= 1e-6 else self.scores
        weight = torch.zeros(num_classes, self.scores.shape[1], dtype=torch.float64)
        bias = (self.weights @ self.targets).clamp_min(1e-12).log()
        for strength in strengths:
            weight, bias, iterations = self._minimise(strength, weight, bias, scores, tolerance)
            yield self._certified(strength, weight, bias, iterations)

    def solve(self, strength: float, start: Solution | None = None) -> Solution:
        """Solve for one strength, above 0, from another solution of this problem or from zero."""
        if start is None:
            return next(self.path([strength]))
        bias = start.bias + start.weight @ self.mean
        weight, bias, iterations = self._minimise(strength, start.coordinates, bias, self.scores, TOLERANCE)
        return self._certified(strength, weight, bias, iterations)

    def _minimise(
        self, strength: float, weight: Tensor, bias: Tensor, scores: Tensor, tolerance: float
    ) -> tuple[Tensor, Tensor, int]:
        num_classes = len(bias)
        # Of softmax, the curvature by a logit is p (1 - p) at most; at the start all classes are equally likely.
        spread = (1 - 1 / num_classes) / num_classes
        scale = torch.cat([(self.curvatures * spread + strength).sqrt(), torch.tensor([spread**0.5]).double()])
        latest = np.zeros(0)

        def value_and_gradient(point: Floats) -> tuple[float, Floats]:
            nonlocal latest
            both = torch.from_numpy(point).view(num_classes, -1) / scale
            loss, by_weight, by_bias = self._loss(scores, both[:, :-1], both[:, -1])
            gradient = torch.cat([by_weight + strength * both[:, :-1], by_bias[:, None]], dim=1) / scale
            latest = gradient.flatten().numpy()
            return loss + strength / 2 * float(both[:, :-1].square().sum()), latest

        def stop(intermediate_result: OptimizeResult) -> None:
            # Where curvatures are about 1, half the square of the gradient is the distance from the optimum.
            if latest @ latest / 2 <= bound * intermediate_result.fun:
                raise StopIteration

        point = (torch.cat([weight, bias[:, None]], dim=1) * scale).flatten().numpy()
        options = {"maxiter": MAX_ITERATIONS, "gtol": 0.0, "ftol": 0.0, "maxcor": 20}
        bound, iterations = tolerance, 0
        for _ in range(ROUNDS):
            found = minimize(value_and_gradient, point, jac=True, method="L-BFGS-B", options=options, callback=stop)
            point, iterations = found.x, iterations + int(found.nit)
            both = torch.from_numpy(point).view(num_classes, -1) / scale
            weight, bias = both[:, :-1].clone(), self._best_bias(both[:, :-1], both[:, -1])
            gap, objective = self._gap(strength, weight, bias)
            if gap <= tolerance * objective or found.nit == 0 or iterations >= MAX_ITERATIONS:
                break
            bound /= 10
        return weight, bias, iterations

    def _loss(self, scores: Tensor, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The mean loss, and its gradients by weight [C, K] and bias [C]; products are in the dtype of the scores."""
        logits = (scores @ weight.T.to(scores.dtype)).double() + bias
        normaliser = logits.logsumexp(dim=1)
        loss = self.weights @ (normaliser - (self.targets * logits).sum(dim=1))
        excess = ((logits - normaliser[:, None]).exp_() - self.targets) * self.weights[:, None]
        return float(loss), (excess.T.to(scores.dtype) @ scores).double(), excess.sum(dim=0)

    def _gap(self, strength: float, weight: Tensor, bias: Tensor) -> tuple[float, float]:
        """The duality gap at the best bias, and the objective.

        For probabilities q with ``sum_i w_i (t_i - q_i) = 0``, as the best bias gives them, the dual objective
        ``sum_i w_i H(q_i) - |V|^2 / (2 strength)``, with the entropy H and ``V = sum_i w_i (t_i - q_i) x_i``, is a
        lower bound of the optimum. With the gradient ``G = strength W - V``, the gap is ``|G|^2 / (2 strength)``.
        """
        loss, by_weight, _ = self._loss(self.scores, weight, bias)
        gradient = by_weight + strength * weight
        return float(gradient.square().sum()) / (2 * strength), loss + strength / 2 * float(weight.square().sum())

    def _certified(self, strength: float, weight: Tensor, bias: Tensor, iterations: int) -> Solution:
        loss, by_weight, by_bias = self._loss(self.scores, weight, bias)
        by_weight += strength * weight
        squares = float(by_weight.square().sum())
        full = weight @ self.basis.T
        return Solution(
            strength,
            full,
            bias - full @ self.mean,
            weight,
            loss + strength / 2 * float(weight.square().sum()),
            loss,
            squares / (2 * strength),
            float((squares + by_bias.square().sum()) ** 0.5),
            iterations,
        )

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


def _units(variances: Tensor, parts: Sequence[int]) -> Tensor:
    """What each feature is divided by, from its variance: float64 [D]."""
    if not parts:
        return torch.ones_like(variances)
    units = torch.cat([part.mean().sqrt().expand(len(part)) for part in variances.split(list(parts))])
    return torch.where(units > 1e-12 * units.max(), units, torch.inf)  # a part that is constant has no say
