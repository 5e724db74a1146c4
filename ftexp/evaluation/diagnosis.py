"""Diagnoses the curves of a phase (diverging, not learning, erratic, overfitting), and suggests one setting to try.

Thresholds are set so that a healthy run gets no message: a finding has to exceed the random variation that the number
of validation images alone explains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ftexp.evaluation.history import EpochRecord
from ftexp.metric_names import METRICS, Metric

Signal = Literal[
    "working", "overfitting", "not learning", "diverging", "erratic validation", "too early to say", "solved"
]

MIN_EPOCHS = 3
# A head that has learned something has changed by more than this share of its norm.
SMALL_CHANGE = 0.02
# Half-width of the two-sided 95 % interval of a normal distribution, in standard deviations.
Z95 = 1.96
# If the half-width of the accuracy's 95 % interval exceeds this, hardly any two runs can be told apart.
MAX_HALF_WIDTH = 0.1


@dataclass(frozen=True, slots=True)
class Setting:
    """The reference values for the diagnosis.

    Attributes:
        metric: the validation metric that selects the best epoch.
        num_val: number of validation images.
        chance_loss: the lowest training loss that is possible without looking at the images.
        start_loss: the training loss if every class has the same logit, as before training.
        chance_accuracy: the validation accuracy of always predicting the most frequent class of the validation set.
    """

    metric: str
    num_val: int
    chance_loss: float
    start_loss: float
    chance_accuracy: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the curves show.

    Attributes:
        signal: the name of the finding.
        sentence: the finding in a sentence with numbers.
        override: one setting to try; None if nothing is wrong.
    """

    signal: Signal
    sentence: str
    override: str | None


def diagnose(history: Sequence[EpochRecord], setting: Setting, *, solved: bool = False) -> Diagnosis:
    """Diagnose the epochs of one phase; if there are several findings, the most serious one is returned.

    Args:
        history: the epochs of the phase.
        setting: the reference values.
        solved: whether the phase solved the head, which has no curve.
    """
    if solved:
        return Diagnosis("solved", "The head is at its optimum on these features; only other features can help.", None)
    if len(history) < MIN_EPOCHS:
        return Diagnosis("too early to say", f"{len(history)} epochs are too few to see a trend.", None)
    checks = (_diverging, _not_learning, _erratic, _overfitting)
    for check in checks:
        if found := check(history, setting):
            return found
    first, last, label = history[0], history[-1], METRICS[setting.metric].label
    sentence = (
        f"Training loss fell from {first.train_loss:.3f} to {last.train_loss:.3f}, and validation {label} "
        f"reached {_best(_values(history, setting), setting):.3f}."
    )
    return Diagnosis("working", sentence, None)


def _diverging(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """The training loss ends at over 1.5 times the loss of guessing, and has not fallen since the beginning."""
    losses = [record.train_loss for record in history]
    first, last = losses[0], losses[-1]
    # The loss of equal logits may be far above that of guessing: 0.69 and 0.06 for 100 classes with bce.
    begun = max(setting.start_loss, setting.chance_loss)
    risen = last >= first or last >= 1.5 * min(losses)
    far = last >= 1.5 * begun or (last >= 1.5 * setting.chance_loss and risen)
    if not far and (max(losses) < 3 * begun or last < first):
        return None
    sentence = (
        f"The training loss went from {first:.3f} to {last:.3f} (guessing gives {setting.chance_loss:.3f}), "
        f"at a head rate of {_peak(history):.2g}: the learning rate is too high."
    )
    return Diagnosis("diverging", sentence, f"optimizer.head_lr={_peak(history) / 10:.1g}")


def _not_learning(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """Validation never got better than chance; the training loss and the gradients tell why."""
    best = max(record.val["accuracy"] for record in history)
    if best > setting.chance_accuracy + Z95 * _spread(setting.chance_accuracy, setting.num_val):
        return None
    first, last = history[0].train_loss, history[-1].train_loss
    fallen = 1 - last / first
    numbers = (
        f"Validation accuracy stayed at {best:.3f}, and always predicting the most frequent class gives "
        f"{setting.chance_accuracy:.3f}; the training loss fell by {100 * fallen:.0f} % to {last:.3f} "
        f"(guessing: {setting.chance_loss:.3f})"
    )
    if fallen > 0.1 and last < 0.9 * setting.chance_loss:
        sentence = f"{numbers}: the network memorises without generalising, so labels may be wrong."
        return Diagnosis("not learning", sentence, "audit.on_leak=warn, then look at splits.csv for wrong labels")
    moved = history[-1].head_change
    if moved < SMALL_CHANGE:
        sentence = (
            f"{numbers}. The head changed by {100 * moved:.2g} % of its norm: "
            f"the learning rate of {_peak(history):.2g} is too low."
        )
        return Diagnosis("not learning", sentence, f"optimizer.head_lr={_peak(history) * 10:.1g}")
    sentence = (
        f"{numbers}, although the head changed by {100 * moved:.2g} % of its norm with a gradient norm of "
        f"{history[-1].grad_norm:.2g}: the blocks that could learn this are frozen, or labels may be wrong."
    )
    return Diagnosis("not learning", sentence, "stage=full")


def _erratic(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """The validation set is too small to tell epochs apart, or the metric varies more than its size explains.

    A metric without bounds is replaced by accuracy, because the number of images does not predict its variation.
    """
    metric = METRICS[setting.metric if math.isfinite(METRICS[setting.metric].high) else "accuracy"]
    accuracies, values = ([record.val[name] for record in history] for name in ("accuracy", metric.name))
    level = sum(accuracies[1:]) / (len(accuracies) - 1)
    spread = _scatter(metric, sum(values[1:]) / (len(values) - 1), setting.num_val)
    half_width = Z95 * _spread(min(level, 0.9), setting.num_val)
    if half_width > MAX_HALF_WIDTH:
        sentence = (
            f"{setting.num_val} validation images give an accuracy of {level:.2f} an uncertainty of ±{half_width:.2f}; "
            f"differences below {half_width * math.sqrt(2):.2f} between runs mean nothing."
        )
        return Diagnosis("erratic validation", sentence, "data.val_fraction=0.3")
    # In the first epochs the metric changes because the network learns, so only the second half counts.
    late = values[len(values) // 2 :]
    jumps = [abs(after - before) for before, after in pairwise(late)]
    if len(jumps) < 2 or sorted(jumps)[-2] < 4 * max(spread, (metric.high - metric.low) / setting.num_val):
        return None
    sentence = (
        f"Validation {metric.label} changed by {max(jumps):.3f} from one epoch to the next, while {setting.num_val} "
        f"images alone explain a variation of {spread:.3f}: the steps are too large."
    )
    return Diagnosis("erratic validation", sentence, f"optimizer.head_lr={_peak(history) / 3:.1g}")


def _overfitting(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """The training loss keeps falling while the validation loss and metric have become worse since the best epoch."""
    lowest = min(range(len(history)), key=lambda i: history[i].val_loss)
    best, last = history[lowest], history[-1]
    values = _values(history, setting)
    metric, peak = METRICS[setting.metric], _best(values, setting)
    lost = metric.gain(values[-1], peak)
    risen = last.val_loss / best.val_loss - 1
    since = len(history) - 1 - lowest
    bounded = math.isfinite(metric.high)
    noticeable = risen > 0.5 or (bounded and lost > _scatter(metric, peak, setting.num_val))
    if since < 2 or risen < 0.1 or last.train_loss > 0.9 * best.train_loss or not noticeable:
        return None
    sentence = (
        f"Since epoch {best.epoch} the validation loss rose from {best.val_loss:.3f} to {last.val_loss:.3f} and "
        f"{metric.label} got worse by {lost:.3f}, while the training loss fell from {best.train_loss:.3f} to "
        f"{last.train_loss:.3f}."
    )
    return Diagnosis("overfitting", sentence, "augment=light" if lowest > 0 else "stage=head")


def _values(history: Sequence[EpochRecord], setting: Setting) -> list[float]:
    return [record.val[setting.metric] for record in history]


def _scatter(metric: Metric, value: float, num_images: int) -> float:
    """Standard error of a metric, estimated as that of an accuracy at the same position in its range."""
    whole = metric.high - metric.low
    return whole * _spread((value - metric.low) / whole, num_images)


def _best(values: Sequence[float], setting: Setting) -> float:
    return max(values) if METRICS[setting.metric].maximize else min(values)


def _peak(history: Sequence[EpochRecord]) -> float:
    return max(record.lr_head for record in history)


def _spread(share: float, num_images: int) -> float:
    """Standard error of a share that is measured on ``num_images`` images."""
    share = min(max(share, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / num_images)
