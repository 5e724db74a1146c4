"""The losses: means over the samples of a batch, for targets that are class indices or class probabilities.

Every loss is returned as a sum and its denominator. So the loss of a whole batch can be computed exactly from its
parts (accumulated batches, or the parts of the ranks): the sum of their sums, divided by the sum of their denominators.
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
    """The loss of some samples as a sum and its denominator.

    Attributes:
        total: the sum, a scalar tensor.
        weight: the denominator: the number of samples or, if the classes are weighted, a scalar tensor on the device
            without a gradient.
    """

    total: Tensor
    weight: Tensor | int

    @property
    def mean(self) -> Tensor:
        """The mean loss of these samples."""
        return self.total / self.weight


Loss = Callable[[Tensor, Tensor], LossSum]


def build_loss(config: LossConfig, class_counts: Sequence[int]) -> nn.Module:
    """Build the configured loss: from logits [B, C], and targets int64 [B] or float [B, C], to a ``LossSum``.

    Args:
        config: the settings of the loss.
        class_counts: number of training samples of each of the C classes.
    """
    return BUILDERS[type(config)](config, class_counts)


class CrossEntropy(nn.Module):
    """Cross-entropy; with class weights, the mean is weighted by the samples' targets before smoothing.

    For class indices, this is torch's ``CrossEntropyLoss``. For class probabilities, torch divides by B whatever the
    weights are; here a one-hot row has the same loss as its class index.

    Args:
        smoothing: this share of every target is spread evenly over all classes.
        class_weights: float [C]; None: all classes have the same weight.
    """

    class_weights: Tensor | None

    def __init__(self, smoothing: float, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self._smoothing = smoothing
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, C]; int64 [B] or float [B, C], rows that sum to 1."""
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
    """Binary cross-entropy: every class is a separate yes or no; the mean over samples and classes.

    Args:
        smoothing: this share of every target is spread evenly over all classes.

    Source: Wightman et al., 2021, "ResNet strikes back"; as timm.loss.BinaryCrossEntropy.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, C]; int64 [B] or float [B, C], rows that sum to 1."""
        logits = at_least_float32(logits)
        num_classes = logits.shape[1]
        shares = as_shares(targets, logits) * (1 - self._smoothing) + self._smoothing / num_classes
        total = F.binary_cross_entropy_with_logits(logits, shares, reduction="sum")
        return LossSum(total / num_classes, len(logits))


class FocalLoss(nn.Module):
    """Focal loss: cross-entropy in which samples that the network classifies with confidence have less weight.

    Args:
        gamma: 0 is plain cross-entropy; the larger it is, the less weight easy samples have.

    Source: Lin et al., 2017, "Focal loss for dense object detection", in its softmax form, without alpha.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self._gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> LossSum:
        """Args: float [B, C]; int64 [B] or float [B, C], rows that sum to 1."""
        log_p = at_least_float32(logits).log_softmax(dim=1)
        # expm1, because 1 - exp(log p) loses digits near p = 1; clamped, because a root has no gradient at 0.
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


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits, in float32 if they have half precision: bf16 has too few digits for smoothed targets and sums."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def as_shares(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as class probabilities [B, C]: class indices become one-hot rows in the dtype of the logits."""
    if targets.ndim == 2:
        return targets.to(logits.dtype)
    return F.one_hot(targets, logits.shape[1]).to(logits.dtype)
