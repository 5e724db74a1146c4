"""The metrics: names, directions and ranges, without importing the libraries that compute them.

To add a metric, add an entry here, and its function in ``ftexp/evaluation/metrics.py``. All else follows from it: the
allowed values of ``train.metric`` and of a sweep's objectives, the columns of ``metrics.csv``, the intervals, the gate,
the diagnosis, the plots and the tracking.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ftexp.errors import ConfigError, DataError

Needs = Literal["counts", "samples", "probabilities"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to score predictions.

    Attributes:
        name: its name in settings, tables and files.
        label: its name in sentences and plots.
        low: the smallest possible value.
        high: the largest possible value.
        needs: what it is computed from. ``counts``: how often each class is the true one, the predicted one and both;
            ``samples``: the rank of the true class and the loss of every sample; ``probabilities``: the probabilities
            of all classes, which take the longest.
        binary: whether it is defined for two classes only; the second class in the order of names is the positive one.
        maximize: whether larger is better.
    """

    name: str
    label: str
    low: float
    high: float
    needs: Needs = "counts"
    binary: bool = False
    maximize: bool = True

    def gain(self, before: float, after: float) -> float:
        """The improvement from ``before`` to ``after``; negative if ``after`` is worse."""
        return after - before if self.maximize else before - after

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; equal values and NaN are not."""
        return not math.isnan(value) and (best is None or self.gain(best, value) > 0)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", 0, 1),
        Metric("macro_f1", "macro F1", 0, 1),
        Metric("balanced_accuracy", "balanced accuracy", 0, 1),
        Metric("cohen_kappa", "Cohen's kappa", -1, 1),
        Metric("matthews", "Matthews correlation", -1, 1),
        Metric("top_5", "top-5 accuracy", 0, 1, needs="samples"),
        Metric("log_loss", "log loss", 0, float("inf"), needs="samples", maximize=False),
        Metric("auroc", "AUROC", 0, 1, needs="probabilities"),
        Metric("average_precision", "average precision", 0, 1, needs="probabilities"),
        Metric("sensitivity_at_90", "sensitivity at 90 % specificity", 0, 1, needs="probabilities", binary=True),
        Metric("sensitivity_at_95", "sensitivity at 95 % specificity", 0, 1, needs="probabilities", binary=True),
        Metric("sensitivity_at_99", "sensitivity at 99 % specificity", 0, 1, needs="probabilities", binary=True),
    )
}


def recorded(asked: Sequence[str], num_classes: int) -> list[str]:
    """The metrics that every epoch records: those from counts of classes, and those that are requested."""
    free = [name for name, metric in METRICS.items() if metric.needs == "counts"]
    also = [*asked, "top_5"] if num_classes > 5 else asked
    return [*free, *(name for name in METRICS if name in also and name not in free)]


def check_defined(asked: Sequence[str], classes: Sequence[str], val_labels: Sequence[str]) -> None:
    """Refuse metrics that are not defined for these classes or for this validation set.

    Args:
        asked: names of the requested metrics.
        classes: names of the classes.
        val_labels: the class of each validation image.

    Raises:
        ConfigError: if a metric is for two classes and the data has another number.
        DataError: if a metric needs images of several classes and the validation set has one class only.
    """
    for metric in (METRICS[name] for name in asked):
        if metric.binary and len(classes) != 2:
            others = ", ".join(name for name, one in METRICS.items() if not one.binary)
            raise ConfigError(
                f"{metric.name} is defined for two classes, and the data has {len(classes)}. Choose another "
                f"train.metric or sweep.objectives: {others}."
            )
        if metric.needs == "probabilities" and len(set(val_labels)) < 2:
            raise DataError(
                f"{metric.name} compares images of different classes, and all {len(val_labels)} validation images are "
                f"of {next(iter(set(val_labels)), 'none')}. Choose another train.metric, or another validation set."
            )
