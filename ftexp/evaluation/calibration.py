"""Calibration of probabilities: calibration error, reliability bins, and temperature scaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ftexp.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

# The number of bins in Guo et al. (2017).
NUM_BINS = 15
# Temperatures beyond these make all probabilities equal, or all 0 and 1.
LOWEST, HIGHEST = 1e-3, 1e3
# Of the search for a temperature: its precision, and how many steps it may take.
PRECISION, MAX_STEPS = 1e-12, 100


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Images with a similar confidence, and how many of them are right.

    Attributes:
        low, high: the limits; the bin has the images whose confidence is above ``low`` and at most ``high``.
        count: the number of images in the bin.
        confidence: the mean confidence of its images; NaN in an empty bin.
        accuracy: the share of its images that are classified correctly; NaN in an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidences: Floats, correct: npt.NDArray[np.bool_], num_bins: int = NUM_BINS, *, adaptive: bool = False
) -> list[ReliabilityBin]:
    """Sort images into bins by the probability of their predicted class.

    Args:
        confidences: float [N], from 0 to 1.
        correct: bool [N], whether the predicted class is the true one.
        num_bins: the number of bins; adaptive bins that would be empty are left out.
        adaptive: whether the bins have equally many images (Nixon et al., 2019, arXiv 1904.01685), not equal widths.

    Returns:
        The bins from low to high confidence; empty bins of equal width are included.
    """
    values = np.asarray(confidences, np.float64)
    if adaptive:
        parts = [part for part in np.array_split(np.argsort(values, kind="stable"), num_bins) if len(part)]
        edges = [(float(values[part].min()), float(values[part].max())) for part in parts]
    else:
        number = np.clip(np.ceil(values * num_bins).astype(int) - 1, 0, num_bins - 1)
        parts = [np.flatnonzero(number == i) for i in range(num_bins)]
        edges = [(i / num_bins, (i + 1) / num_bins) for i in range(num_bins)]
    return [
        ReliabilityBin(low, high, len(part), _mean(values[part]), _mean(correct[part]))
        for part, (low, high) in zip(parts, edges, strict=True)
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy, bins weighted by their images.

    Source: Naeini et al. (2015); as used by Guo et al. (2017, arXiv 1706.04599).
    """
    filled = [one for one in bins if one.count]
    total = sum(one.count for one in filled)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in filled) / total if total else float("nan")


def tempered(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities [N, C] of logits that are divided by a temperature first."""
    return _softmax(np.asarray(logits, np.float64) / temperature)


def negative_log_likelihood(logits: Floats, labels: Integers, temperature: float = 1.0) -> float:
    """Mean cross-entropy in nats of logits [N, C] that are divided by a temperature first."""
    logs = torch.from_numpy(np.asarray(logits, np.float64) / temperature).log_softmax(dim=1).numpy()
    return float(-logs[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Floats, labels: Integers) -> float:
    """The temperature with the lowest cross-entropy of the labels and of half an image more, which is wrong.

    Of each of N images, a share of 1/2 / (N + 1) counts as the likeliest class but its label. Without that, few images
    make the network too sure: where all are right, the lower the temperature the likelier they are. Half an image is
    what Jeffreys' prior adds to a count. Platt (1999) adds more: (N + 1) / (N + 2) instead of (N + 1/2) / (N + 1).

    Args:
        logits: float [N, C], C at least 2.
        labels: int64 [N].

    Raises:
        DataError: where there is no such temperature: the labels have no larger logits than others on average, so that
            a higher one is always likelier.

    Source: temperature scaling (Guo et al., 2017, arXiv 1706.04599).
    """
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=1, keepdims=True)
    rows, wrong = np.arange(len(labels)), 0.5 / (len(labels) + 1)
    others = values.copy()
    others[rows, labels] = -np.inf
    target = (1 - wrong) * values[rows, labels] + wrong * others.max(axis=1)

    found = likeliest_temperature(values, target, (LOWEST, HIGHEST))
    if found in (LOWEST, HIGHEST):
        side = "lower" if found == LOWEST else "higher"
        raise DataError(f"No temperature from {LOWEST:g} to {HIGHEST:g} is the best: a {side} one is always likelier.")
    return found


def likeliest_temperature(
    logits: npt.NDArray[np.float64], target: npt.NDArray[np.float64], limits: tuple[float, float]
) -> float:
    """The temperature within limits with the lowest mean cross-entropy, as one of them if it is beyond.

    In b = 1 / T the mean cross-entropy is convex, and its derivative is the mean over the images of
    ``E_p[z] - E_t[z]``, with p = softmax(b z) and the targets t. Its root is found by Newton's method, with the mean
    variance of z as the derivative; where a step leaves the interval that has the root, the interval is halved.

    Args:
        logits: float64 [N, C].
        target: ``E_t[z]``, the mean logit of each image by its targets, float64 [N]; of a label, its logit.
        limits: the lowest and the highest temperature.
    """

    def slope(inverse: float) -> tuple[float, float]:
        shares = _softmax(inverse * logits)
        means = (shares * logits).sum(axis=1)
        return float((means - target).mean()), float(((shares * logits**2).sum(axis=1) - means**2).mean())

    low, high = 1 / limits[1], 1 / limits[0]
    if slope(low)[0] >= 0 or slope(high)[0] <= 0:
        return limits[1] if slope(low)[0] >= 0 else limits[0]
    inverse = math.sqrt(low * high)
    for _ in range(MAX_STEPS):
        value, curvature = slope(inverse)
        low, high = (inverse, high) if value < 0 else (low, inverse)
        step = value / curvature if curvature > 0 else math.inf
        before, inverse = inverse, inverse - step
        if not low <= inverse <= high:
            inverse = math.sqrt(low * high)
        if abs(inverse - before) <= PRECISION * inverse:
            break
    return 1 / inverse


def calibration_figures(logits: Floats, labels: Integers, temperature: float = 1.0) -> dict[str, float]:
    """``log_loss`` in nats, ``ece`` and ``adaptive_ece`` (both with ``NUM_BINS`` bins).

    Args:
        logits: float [N, C].
        labels: int64 [N]; C and above for classes that the network lacks. Their images are wrong whatever it answers,
            and are left out of the log loss, which would be infinite.
        temperature: logits are divided by it first.
    """
    probabilities, known = tempered(logits, temperature), labels < logits.shape[1]
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    loss = negative_log_likelihood(logits[known], labels[known], temperature) if known.any() else float("nan")
    return {
        "log_loss": loss,
        "ece": calibration_error(reliability_bins(confidences, correct)),
        "adaptive_ece": calibration_error(reliability_bins(confidences, correct, adaptive=True)),
    }


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    probabilities: npt.NDArray[np.float64] = torch.from_numpy(logits).softmax(dim=1).numpy()
    return probabilities


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
