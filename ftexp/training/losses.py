"""What training minimises: a mean over the batch's samples, for class numbers and for shares of classes alike.

Every loss is a sum with its denominator, so that the parts of a batch (accumulated batches, the processes' shares)
combine to exactly the loss of the whole: the sum of their sums over the sum of their denominators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftexp.config.loss import BceConfig, CrossEntropyConfig, FocalConfig, LossConfig
from ftexp.training.imbalance import class_weights


@dataclass(frozen=True, slots=True)
class LossSum:
    """The loss of some samples, not yet divided.

    Attributes:
        total: scalar.
        weight: what ``total`` is divided by for the mean. The number of samples where all count alike; where they do
            not, a scalar tensor on the device, without a gradient.
    """

    total: Tensor
    weight: Tensor | int

    @property
    def mean(self) -> Tensor:
        """Over these samples alone."""
        return self.total / self.weight


Loss = Callable[[Tensor, Tensor], LossSum]


def build_loss(config: LossConfig, class_counts: Sequence[int]) -> nn.Module:
    """The configured ``Loss``: logits [B, K], and int64 [B] or float [B, K] targets -> the ``LossSum`` of B samples.

    Args:
        class_counts: how many training samples each of the K classes has.
    """
    return BUILDERS[type(config)](config, class_counts)


class CrossEntropy(nn.Module):
    """Cross-entropy; with class weights, a mean weighted by the samples' targets as they were before smoothing.

    For class numbers this is torch's ``CrossEntropyLoss``. For shares of classes torch divides by B, whatever the
    weights; here a one-hot row counts as much as its class number does.

    Args:
        smoothing: this much of every sample's target is spread evenly over all classes.
        class_weights: float [K]; None: all classes count alike.
    """

    class_weights: Tensor | None

    def __init__(self, smoothing: float, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self._smoothing = smoothing
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, K]; int64 [B] or float [B, K], rows that sum to 1."""
        logits = at_least_float32(logits)
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        if targets.ndim == 2:
            targets = targets.to(logits.dtype)
        total = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=self._smoothing)
        if weights is None:
            return LossSum(total, len(targets))
        # No matrix product: autocast would round it.
        return LossSum(total, (weights[targets] if targets.ndim == 1 else weights * targets).sum())


class BinaryCrossEntropy(nn.Module):
    """Every class a yes or no of its own; the mean over samples and classes.

    Args:
        smoothing: this much of every sample's target is spread evenly over all classes.

    Source: Wightman et al., 2021, "ResNet strikes back"; as timm.loss.BinaryCrossEntropy.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, K]; int64 [B] or float [B, K], rows that sum to 1."""
        logits = at_least_float32(logits)
        num_classes = logits.shape[1]
        shares = as_shares(targets, logits) * (1 - self._smoothing) + self._smoothing / num_classes
        total = F.binary_cross_entropy_with_logits(logits, shares, reduction="sum")
        return LossSum(total / num_classes, len(logits))


class FocalLoss(nn.Module):
    """Cross-entropy in which a sample counts less the surer the network is of its class already.

    Args:
        gamma: 0 is plain cross-entropy; the larger, the less the easy samples count.

    Source: Lin et al., 2017, "Focal loss for dense object detection", in its softmax form, without alpha.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self._gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, K]; int64 [B] or float [B, K], rows that sum to 1."""
        log_p = at_least_float32(logits).log_softmax(dim=1)
        # By expm1, for 1 - exp(log p) loses its digits where p is near 1; away from 0, where a root has no slope.
        weights = (-torch.expm1(log_p)).clamp_min(1e-7) ** self._gamma
        return LossSum(-(as_shares(targets, log_p) * weights * log_p).sum(), len(logits))


def _cross_entropy(config: CrossEntropyConfig, class_counts: Sequence[int]) -> nn.Module:
    return CrossEntropy(config.label_smoothing, class_weights(class_counts, config.class_weights))


def _bce(config: BceConfig, _: Sequence[int]) -> nn.Module:
    return BinaryCrossEntropy(config.label_smoothing)


def _focal(config: FocalConfig, _: Sequence[int]) -> nn.Module:
    return FocalLoss(config.gamma)


BUILDERS: dict[type[LossConfig], Callable[[Any, Sequence[int]], nn.Module]] = {
    CrossEntropyConfig: _cross_entropy,
    BceConfig: _bce,
    FocalConfig: _focal,
}


def chance_loss(loss: Loss, shares: Tensor) -> float:
    """The least mean loss of outputs that are the same for every sample.

    Every loss here is linear in its targets, so that of one sample with the classes' shares as its target is the mean
    over all samples.

    Args:
        shares: float64 [K], above 0, of the samples that have each class.
    """
    logits = shares.log()[None].requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        mean = loss(logits, shares[None]).mean
        torch.autograd.backward(mean)
        return mean

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return loss(logits, shares[None]).mean.item()


def at_least_float32(logits: Tensor) -> Tensor:
    """Half precision as float32: bf16 has three digits, too few for smoothed targets and for sums."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def as_shares(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as float [B, K]: one-hot where they are class numbers, else as they are."""
    if targets.ndim == 2:
        return targets.to(logits.dtype)
    return F.one_hot(targets, logits.shape[1]).to(logits.dtype)
