"""The mean cross-entropy of a linear layer on fixed features, with its gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Newton's method for the bias ends at a gradient of this many units of rounding, and after so many steps at the latest.
ROUNDING, STEPS = 4.5, 20


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """``sum_i w_i CE(t_i, W x_i + b)``, computed in the dtype of its tensors.

    Attributes:
        scores: float [N, K], the features x.
        targets: float [N, C], the targets t; rows that sum to 1.
        weights: float [N], the weights w; they sum to 1.
    """

    scores: Tensor
    targets: Tensor
    weights: Tensor

    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The loss, and its gradients by weight float64 [C, K] and bias float64 [C]."""
        log_probabilities = self._logits(weight, bias).log_softmax(dim=1)
        losses = (self.targets * log_probabilities).sum(dim=1)
        excess = log_probabilities.exp_().sub_(self.targets).mul_(self.weights[:, None])
        loss = -float(self.weights.double() @ losses.double())
        return loss, (excess.T @ self.scores).double(), excess.sum(dim=0).double()

    def best_bias(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The bias float64 [C] that is best beside this weight, by Newton's method from another bias."""
        logits = self._logits(weight, bias)
        moved = torch.zeros_like(bias)
        for _ in range(STEPS):
            probabilities = (logits + moved.to(logits.dtype)).softmax(dim=1)
            gradient = self.weights @ (probabilities - self.targets)
            if gradient.abs().max() < ROUNDING * torch.finfo(logits.dtype).eps:
                break
            weighted = probabilities * self.weights[:, None]
            curvature = (weighted.sum(dim=0).diag() - weighted.T @ probabilities).double()
            # A constant may be added to all of the bias; the ones keep the matrix regular.
            moved = moved - torch.linalg.solve(curvature + 1 / len(bias), gradient.double())
        return bias + moved

    def _logits(self, weight: Tensor, bias: Tensor) -> Tensor:
        dtype = self.scores.dtype
        return torch.addmm(bias.to(dtype), self.scores, weight.T.to(dtype))
