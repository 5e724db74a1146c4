"""The loss and its gradients are torch's, and the best bias is the best."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ftexp.probe.mean_loss import MeanLoss

GENERATOR = torch.Generator().manual_seed(0)
SCORES = torch.randn(50, 6, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.rand(50, 3, generator=GENERATOR, dtype=torch.float64).softmax(dim=1)
WEIGHTS = torch.rand(50, generator=GENERATOR, dtype=torch.float64)
WEIGHT = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)
BIAS = torch.randn(3, generator=GENERATOR, dtype=torch.float64)
SHARES = WEIGHTS / WEIGHTS.sum()


def by_autograd(weight: torch.Tensor, bias: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    loss = SHARES @ F.cross_entropy(SCORES @ weight.T + bias, TARGETS, reduction="none")
    parts = torch.autograd.grad(loss, (weight, bias))
    return float(loss.detach()), parts[0], parts[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_loss_and_gradients_are_torchs(dtype: torch.dtype, tolerance: float) -> None:
    loss = MeanLoss(SCORES.to(dtype), TARGETS.to(dtype), SHARES.to(dtype))
    for found, expected in zip(loss(WEIGHT, BIAS), by_autograd(WEIGHT, BIAS), strict=True):
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_beside_the_best_bias_its_gradient_is_zero(dtype: torch.dtype, tolerance: float) -> None:
    best = MeanLoss(SCORES.to(dtype), TARGETS.to(dtype), SHARES.to(dtype)).best_bias(WEIGHT, BIAS)
    assert by_autograd(WEIGHT, best)[2].abs().max() < tolerance
