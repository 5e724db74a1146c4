"""What training minimises: a mean over the batch's samples, for class numbers and for shares of classes alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ftexp.config import TrainConfig


def build_loss(config: TrainConfig, class_weights: Tensor | None = None) -> nn.Module:
    """The configured loss: logits [B, K], and int64 [B] or float [B, K] targets -> the mean over the B samples.

    Args:
        class_weights: float [K], for cross-entropy only; the mean is a weighted one then.
    """
    assert class_weights is None or config.loss == "cross_entropy"
    if config.loss == "bce":
        return BinaryCrossEntropy(config.label_smoothing)
    if config.loss == "focal":
        assert config.focal_gamma is not None
        return FocalLoss(config.focal_gamma)
    return nn.CrossEntropyLoss(class_weights, label_smoothing=config.label_smoothing)


class BinaryCrossEntropy(nn.Module):
    """Every class a yes or no of its own; the mean over samples and classes.

    Args:
        smoothing: this much of every sample's target is spread evenly over all classes.

    Source: Wightman et al., 2021, "ResNet strikes back"; as timm.loss.BinaryCrossEntropy.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self._smoothing = smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Args: float [B, K]; int64 [B] or float [B, K], rows that sum to 1. Returns: a scalar."""
        shares = as_shares(targets, logits) * (1 - self._smoothing) + self._smoothing / logits.shape[1]
        return F.binary_cross_entropy_with_logits(logits, shares)


class FocalLoss(nn.Module):
    """Cross-entropy in which a sample counts less the surer the network is of its class already.

    Args:
        gamma: 0 is plain cross-entropy; the larger, the less the easy samples count.

    Source: Lin et al., 2017, "Focal loss for dense object detection", in its softmax form, without alpha.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self._gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Args: float [B, K]; int64 [B] or float [B, K], rows that sum to 1. Returns: a scalar."""
        log_p = logits.float().log_softmax(dim=1)
        # By expm1, for 1 - exp(log p) loses its digits where p is near 1; away from 0, where a root has no slope.
        weights = (-torch.expm1(log_p)).clamp_min(1e-7) ** self._gamma
        return -(as_shares(targets, log_p) * weights * log_p).sum(dim=1).mean()


def as_shares(targets: Tensor, logits: Tensor) -> Tensor:
    """Targets as float [B, K]: one-hot where they are class numbers, else as they are."""
    if targets.ndim == 2:
        return targets.to(logits.dtype)
    return F.one_hot(targets, logits.shape[1]).to(logits.dtype)
