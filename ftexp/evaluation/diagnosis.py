"""What a phase's curves show (diverging, not learning, erratic, overfitting), and one setting to try.

Thresholds are set so that a healthy run is told nothing: a finding has to stand out from what the number of
validation images alone would scatter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch

from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.metric_names import METRICS, Metric
from ftexp.training.losses import build_loss, chance_loss

Signal = Literal["working", "overfitting", "not learning", "diverging", "erratic validation", "too early to say"]

MIN_EPOCHS = 3
# A head that learned something has moved further than this share of its norm.
SMALL_CHANGE = 0.02
# Two-sided 95 % of a normal distribution.
Z95 = 1.96
# Wider than this, a 95 % interval of the accuracy tells hardly any two runs apart.
MAX_HALF_WIDTH = 0.1


@dataclass(frozen=True, slots=True)
class Setting:
    """What the curves are read against.

    Attributes:
        chance_loss: the least that the training loss comes to without looking at the images.
        start_loss: what it comes to where every class gets the same output, as from a network that knows nothing.
        chance_accuracy: of always naming the most frequent class of validation.
        metric: the validation metric that decides.
    """

    metric: str
    num_val: int
    chance_loss: float
    start_loss: float
    chance_accuracy: float


def read_against(config: Config, train: Sequence[Sample], val: Sequence[Sample]) -> Setting:
    """What guessing would reach on these samples, in the units of the configured training loss."""
    counts = Counter(sample.label for sample in train)
    shares = torch.tensor(list(counts.values()), dtype=torch.float64) / len(train)
    if config.data.sampler == "balanced":
        shares = torch.full_like(shares, 1 / len(shares))
    loss = build_loss(config.loss, list(counts.values()))
    truth = Counter(sample.label for sample in val)
    return Setting(
        metric=config.train.metric,
        num_val=len(val),
        chance_loss=chance_loss(loss, shares),
        start_loss=loss(torch.zeros_like(shares)[None], shares[None]).mean.item(),
        chance_accuracy=max(truth.values()) / len(val),
    )


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the curves show, in a sentence with the numbers, and one override to try; None where nothing is wrong."""

    signal: Signal
    sentence: str
    override: str | None


def diagnose(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis:
    """Name the signal in the epochs of one phase; the most serious one when there are several."""
    if len(history) < MIN_EPOCHS:
        return Diagnosis("too early to say", f"{len(history)} epochs are too few to read a trend from.", None)
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
    """The training loss ends above what guessing costs by half, and has not been falling from where it began."""
    losses = [record.train_loss for record in history]
    first, last = losses[0], losses[-1]
    # The loss of equal outputs may be far above that of guessing: 0.69 and 0.06 for 100 classes with bce.
    begun = max(setting.start_loss, setting.chance_loss)
    risen = last >= first or last >= 1.5 * min(losses)
    far = last >= 1.5 * begun or (last >= 1.5 * setting.chance_loss and risen)
    if not far and (max(losses) < 3 * begun or last < first):
        return None
    sentence = (
        f"The training loss went from {first:.3f} to {last:.3f} (guessing costs {setting.chance_loss:.3f}), "
        f"at a head rate of {_peak(history):.2g}: the learning rate is too high."
    )
    return Diagnosis("diverging", sentence, f"optimizer.head_lr={_peak(history) / 10:.1g}")


def _not_learning(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """Validation never left chance; why is told by the training loss and the gradients."""
    best = max(record.val["accuracy"] for record in history)
    if best > setting.chance_accuracy + Z95 * _spread(setting.chance_accuracy, setting.num_val):
        return None
    first, last = history[0].train_loss, history[-1].train_loss
    fallen = 1 - last / first
    numbers = (
        f"Validation accuracy stayed at {best:.3f}, where always naming the most frequent class gives "
        f"{setting.chance_accuracy:.3f}; the training loss fell by {100 * fallen:.0f} % to {last:.3f} "
        f"(guessing: {setting.chance_loss:.3f})"
    )
    if fallen > 0.1 and last < 0.9 * setting.chance_loss:
        sentence = f"{numbers}: the network memorises what does not carry over, so the labels are suspicious."
        return Diagnosis("not learning", sentence, "audit.on_leak=warn, then look at splits.csv for wrong labels")
    moved = history[-1].head_change
    if moved < SMALL_CHANGE:
        sentence = (
            f"{numbers}. The head moved by {100 * moved:.2g} % of its norm: "
            f"the learning rate of {_peak(history):.2g} is too low."
        )
        return Diagnosis("not learning", sentence, f"optimizer.head_lr={_peak(history) * 10:.1g}")
    sentence = (
        f"{numbers}, though the head moved by {100 * moved:.2g} % of its norm at a gradient norm of "
        f"{history[-1].grad_norm:.2g}: the blocks that could learn this are frozen, or the labels are suspicious."
    )
    return Diagnosis("not learning", sentence, "stage=full")


def _erratic(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """The validation set is too small to tell epochs apart, or the metric jumps more than its size explains.

    The accuracy is read in place of a metric without bounds, whose scatter no number of images tells.
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
    # The first epochs move by learning, not by chance: only what follows the first half counts.
    late = values[len(values) // 2 :]
    jumps = [abs(after - before) for before, after in pairwise(late)]
    if len(jumps) < 2 or sorted(jumps)[-2] < 4 * max(spread, (metric.high - metric.low) / setting.num_val):
        return None
    sentence = (
        f"Validation {metric.label} jumped by {max(jumps):.3f} from one epoch to the next, where {setting.num_val} "
        f"images alone would scatter by {spread:.3f}: the steps are too large."
    )
    return Diagnosis("erratic validation", sentence, f"optimizer.head_lr={_peak(history) / 3:.1g}")


def _overfitting(history: Sequence[EpochRecord], setting: Setting) -> Diagnosis | None:
    """Training goes on falling while validation has been getting worse since its best epoch, in loss and metric."""
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
    """What the number of images alone lets a metric scatter by: as an accuracy at the same place of its range."""
    whole = metric.high - metric.low
    return whole * _spread((value - metric.low) / whole, num_images)


def _best(values: Sequence[float], setting: Setting) -> float:
    return max(values) if METRICS[setting.metric].maximize else min(values)


def _peak(history: Sequence[EpochRecord]) -> float:
    return max(record.lr_head for record in history)


def _spread(share: float, num_images: int) -> float:
    """Standard error of a share measured on that many images."""
    share = min(max(share, 0.0), 1.0)
    return math.sqrt(share * (1 - share) / num_images)
