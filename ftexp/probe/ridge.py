"""Ridge regression on class indicators, with every sample's leave-one-out output for many strengths in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RidgePath:
    """The decomposition of the features from which the solutions of all strengths follow.

    Least squares of the class indicators with an intercept that is not penalised: minimise
    ``sum_i w_i |y_i - W x_i - b|^2 + strength |W|^2``, with weights that sum to N.

    Attributes:
        left: float64 [N, K], the left singular vectors of the weighted, centred features.
        singular: float64 [K], the singular values.
        right: float64 [D, K], the right singular vectors.
        targets: float64 [N, C], the weighted, centred indicators.
        projected: float64 [K, C], the targets by the left vectors, the same for all strengths.
        root_weights: float64 [N], square roots of the samples' weights.
        feature_mean: float64 [D], weighted.
        target_mean: float64 [C], weighted.
    """

    left: Tensor
    singular: Tensor
    right: Tensor
    targets: Tensor
    projected: Tensor
    root_weights: Tensor
    feature_mean: Tensor
    target_mean: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, num_classes: int, weights: Tensor | None = None) -> RidgePath:
        """Decompose once.

        Args:
            features: float [N, D].
            labels: int64 [N].
            num_classes: C.
            weights: float [N], above 0, such as those that balance the classes; None: all the same.
        """
        values = features.double()
        given = torch.ones(len(values), dtype=torch.float64) if weights is None else weights.double()
        shares = given / given.sum()
        root = (shares * len(values)).sqrt()
        indicators = torch.nn.functional.one_hot(labels, num_classes).double()
        feature_mean, target_mean = shares @ values, shares @ indicators
        centred = root[:, None] * (values - feature_mean)
        targets = root[:, None] * (indicators - target_mean)
        left, singular, right = decompose(centred)
        return cls(left, singular, right, targets, left.T @ targets, root, feature_mean, target_mean)

    def strengths(self, count: int = 25) -> Tensor:
        """A grid of strengths for these features, float64 [count], the strongest first.

        From the strength that shrinks the largest direction a hundredfold to one that leaves the smallest nearly alone.
        """
        largest = float(self.singular.max()) ** 2
        return torch.logspace(2, -8, count, dtype=torch.float64) * largest

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """The weights float64 [C, D] and the intercept float64 [C] for a strength above 0."""
        shrunk = self.singular / (self.singular.square() + strength)
        weight = (self.projected * shrunk[:, None]).T @ self.right.T
        return weight, self.target_mean - weight @ self.feature_mean

    def leave_one_out(self, strength: float) -> Tensor:
        """What the solution without a sample gives for that sample, float64 [N, C].

        Exact for every linear smoother: the residual divided by one minus the sample's leverage (Allen, 1974). The
        features are taken as they are: whatever standardised them saw all samples.
        """
        return self._outputs(self._residuals(strength) / (1 - self._leverages(strength))[:, None])

    def leave_groups_out(self, strength: float, groups: Sequence[int] | Tensor) -> Tensor:
        """What the solution without a whole group gives for its samples, float64 [N, C].

        A group of all samples leaves nothing to learn from but the shares of the classes, which are then the outputs.

        Args:
            strength: above 0.
            groups: int64 [N]; samples of the same number are left out together.
        """
        numbers = torch.as_tensor(groups)
        residuals = self._residuals(strength)
        outside = residuals / (1 - self._leverages(strength))[:, None]  # right for a group of one
        share = self.singular.square() / (self.singular.square() + strength)
        order = torch.argsort(numbers, stable=True)
        _, counts = torch.unique_consecutive(numbers[order], return_counts=True)
        if len(counts) == 1:
            return self._outputs(self.targets)
        for rows in torch.split(order, counts.tolist()):
            if len(rows) == 1:
                continue
            root = self.root_weights[rows, None] / len(self.targets) ** 0.5
            factor = torch.cat([self.left[rows] * share.sqrt(), root], dim=1)  # times its transpose: the hat matrix
            outside[rows] = _solve_less(factor, residuals[rows])
        return self._outputs(outside)

    def _residuals(self, strength: float) -> Tensor:
        share = self.singular.square() / (self.singular.square() + strength)
        return self.targets - self.left @ (share[:, None] * self.projected)

    def _leverages(self, strength: float) -> Tensor:
        share = self.singular.square() / (self.singular.square() + strength)
        return (self.left.square() * share).sum(dim=1) + self.root_weights.square() / len(self.targets)

    def _outputs(self, residuals: Tensor) -> Tensor:
        """From weighted residuals to outputs in the units of the indicators."""
        return (self.targets - residuals) / self.root_weights[:, None] + self.target_mean


def _solve_less(factor: Tensor, right: Tensor) -> Tensor:
    """Solve ``(I - factor factor^T) x = right``, in the smaller of the two dimensions of the factor (Woodbury, 1950).

    Args:
        factor: float64 [G, K].
        right: float64 [G, C].
    """
    if factor.shape[0] <= factor.shape[1]:
        whole = torch.eye(factor.shape[0], dtype=torch.float64) - factor @ factor.T
        solution: Tensor = torch.linalg.solve(whole, right)
        return solution
    inner = torch.eye(factor.shape[1], dtype=torch.float64) - factor.T @ factor
    inside: Tensor = torch.linalg.solve(inner, factor.T @ right)
    return right + factor @ inside


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values by the smaller of the two Gram matrices, which takes a tenth of the time of an SVD.

    Directions whose singular value is below 1e-7 of the largest are left out: a Gram matrix in float64 does not show
    them, and no strength that makes sense would use them.

    Args:
        matrix: float64 [N, D].

    Returns:
        Left vectors [N, K], values [K] from the largest, right vectors [D, K].
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    squares, vectors = torch.linalg.eigh(matrix.T @ matrix if tall else matrix @ matrix.T)
    kept = squares > squares.max() * 1e-14
    singular, vectors = squares[kept].flip(0).sqrt(), vectors[:, kept].flip(1)
    if tall:
        return matrix @ (vectors / singular), singular, vectors
    return vectors, singular, matrix.T @ (vectors / singular)
