"""The schema of ``loss``: what training minimises.

To add a loss: a dataclass and its name in ``LOSSES`` here, its values in ``conf/loss``, and its function in
``ftexp/training/losses.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from omegaconf import MISSING

from ftexp.config.check import check
from ftexp.config.option_name import check_name

ClassWeights = Literal["none", "balanced", "effective"]


@dataclass(slots=True)
class LossConfig:
    """What training minimises. The validation loss is always cross-entropy."""

    # The name of the option.
    name: str = MISSING

    def __post_init__(self) -> None:
        check_name("loss", self.name, type(self), LOSSES)


@dataclass(slots=True)
class CrossEntropyConfig(LossConfig):
    """Cross-entropy of the softmax."""

    name: str = "cross_entropy"
    # The fraction of every target that is spread evenly over all classes.
    label_smoothing: float = 0.0
    # Weights of the classes by their counts in the training set. balanced: inverse to the count. effective: inverse to
    # the effective number of samples, which saturates for large classes. data.sampler=balanced draws rare classes more
    # often instead. The mean is a weighted one over all images of an update, however many batches and processes share
    # them.
    class_weights: ClassWeights = "none"

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        _check_smoothing(self.label_smoothing)


@dataclass(slots=True)
class BceConfig(LossConfig):
    """Binary cross-entropy, in which every class is a yes-or-no question of its own."""

    name: str = "bce"
    # The fraction of every target that is spread evenly over all classes.
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        _check_smoothing(self.label_smoothing)


@dataclass(slots=True)
class FocalConfig(LossConfig):
    """Cross-entropy in which easy samples count less. It has no label smoothing, which makes no sample easy."""

    name: str = "focal"
    # How much less easy samples count; 0 is plain cross-entropy.
    gamma: float = 2.0

    def __post_init__(self) -> None:
        LossConfig.__post_init__(self)
        check(self.gamma >= 0, "loss.gamma", self.gamma, "0 or above")


LOSSES: dict[str, type[LossConfig]] = {
    "cross_entropy": CrossEntropyConfig,
    "bce": BceConfig,
    "focal": FocalConfig,
}


def _check_smoothing(smoothing: float) -> None:
    check(0 <= smoothing < 1, "loss.label_smoothing", smoothing, "at least 0 and below 1")
