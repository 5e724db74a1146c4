"""Probabilities of images by heads that saw neither them nor what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ftexp.evaluation.calibration import likeliest_temperature, negative_log_likelihood, tempered
from ftexp.probe.features import Features
from ftexp.probe.ridge import RidgePath
from ftexp.progress_lines import SpacedLines

# How many strengths are compared; the grid has ten decades.
NUM_STRENGTHS = 13
# The outputs of ridge regression are near 0 and 1, so their temperature is below 1. The lower bound holds where all
# images are right, and a lower temperature would always be likelier.
TEMPERATURES = (0.02, 2.0)


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What heads say of images that they were not trained on.

    Attributes:
        probabilities: float64 [N, K].
        strength: of the penalty of the ridge regression.
        temperature: by which its outputs are divided before the softmax.
        log_loss: the mean cross-entropy of the given labels.
    """

    probabilities: npt.NDArray[np.float64]
    strength: float
    temperature: float
    log_loss: float


def out_of_fold(features: Features) -> OutOfFold:
    """Leave out one group after the other, and let a head of all the others tell its probabilities.

    The head is a ridge regression of class indicators, for which leaving out takes no new training. Strengths are tried
    from the strongest on, until the log loss outside the groups, at the best temperature, has risen twice in a row.

    Args:
        features: N samples of K classes.
    """
    path = RidgePath.of(features.values, features.labels, len(features.classes))
    best = _best(features, path)
    probabilities = tempered(_left_out(features, path, best.strength), best.temperature)
    return OutOfFold(probabilities, best.strength, best.temperature, best.log_loss)


@dataclass(frozen=True, slots=True)
class Head:
    """A ridge head of all samples that it was given.

    Attributes:
        weight: float64 [K, D].
        bias: float64 [K].
        strength: of the penalty.
        temperature: by which the outputs are divided before the softmax.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    temperature: float

    def logits(self, values: Tensor) -> Tensor:
        """Logits float64 [M, K] of features float [M, D]; their softmax are probabilities."""
        return (values.double() @ self.weight.T + self.bias) / self.temperature


def fit_head(features: Features) -> Head:
    """Train a head, with the strength and the temperature that ``out_of_fold`` finds best for these samples."""
    path = RidgePath.of(features.values, features.labels, len(features.classes))
    best = _best(features, path)
    weight, bias = path.solve(best.strength)
    return Head(weight, bias, best.strength, best.temperature)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A strength with its temperature and log loss; the N x K outputs of all strengths would be many."""

    strength: float
    temperature: float
    log_loss: float


def _best(features: Features, path: RidgePath) -> _Tried:
    tried: list[_Tried] = []
    labels, lines = features.labels.numpy(), SpacedLines("head")
    for strength in path.strengths(NUM_STRENGTHS).tolist():
        outputs = _left_out(features, path, strength)
        temperature = best_temperature(outputs, labels)
        tried.append(_Tried(strength, temperature, negative_log_likelihood(outputs, labels, temperature)))
        lines.say("tried strength %d of at most %d of a ridge head", len(tried), NUM_STRENGTHS)
        if len(tried) > 2 and tried[-1].log_loss > tried[-2].log_loss > tried[-3].log_loss:
            break
    return min(tried, key=lambda one: one.log_loss)


def _left_out(features: Features, path: RidgePath, strength: float) -> npt.NDArray[np.float64]:
    alone = features.num_groups == len(features.labels)
    return (path.leave_one_out(strength) if alone else path.leave_groups_out(strength, features.groups)).numpy()


def best_temperature(outputs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """The temperature within ``TEMPERATURES`` at which the labels [N] are likeliest, given outputs [N, K]."""
    return likeliest_temperature(outputs, outputs[np.arange(len(labels)), labels], TEMPERATURES)
