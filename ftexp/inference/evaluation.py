"""How good a classifier is on labelled images: scores with intervals, tables, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ftexp.evaluation.calibration import ReliabilityBin, calibration_figures, reliability_bins, tempered
from ftexp.evaluation.classes import class_table
from ftexp.evaluation.intervals import Interval, accuracy_interval, bootstrap_intervals
from ftexp.evaluation.scores import Scores
from ftexp.inference.calibration import Calibration
from ftexp.inference.given import GivenImage
from ftexp.metric_names import METRICS

if TYPE_CHECKING:
    import pandas as pd

# Of five classes and fewer, every answer is among the top five.
TOP_5 = 5
# For the interval of a metric that sorts probabilities: all of them together then take two seconds, not ten.
RESAMPLES = 400


@dataclass(frozen=True)
class Evaluation:
    """What ``Classifier.evaluate`` returns.

    Labels and classes are matched by name. An image of a class that the classifier lacks counts as wrong: its class has
    the probability 0. The log loss, which would be infinite, is left out then; ``known()`` has it.

    Attributes:
        classes: the classifier's, in its order, then those that only the images have.
        num_known: how many of them are the classifier's.
        images: in the order in which they were scored.
        scores: what the classifier said, before calibration, as the training's own validation scores it.
        calibration: of the classifier; None if it is not known.
        unreadable: path and reason of each image that could not be read; it is in no score.
    """

    classes: tuple[str, ...]
    num_known: int
    images: tuple[GivenImage, ...]
    scores: Scores
    calibration: Calibration | None = None
    unreadable: tuple[tuple[str | None, str], ...] = ()

    def __repr__(self) -> str:
        shown = ", ".join(f"{METRICS[name].label} {self.metrics[name]:.4f}" for name in ("accuracy", "macro_f1"))
        return f"Evaluation({self.scores.num_samples} images, {shown})"

    @property
    def paths(self) -> tuple[str | None, ...]:
        """Of the images; None where an image is no file."""
        return tuple(image.path for image in self.images)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every metric that is defined for these images."""
        return {name: value for name, value in self.scores.metrics(self._names).items() if not math.isnan(value)}

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % intervals of the metrics: of the accuracy by Wilson's formula, of the others by bootstrap."""
        intervals = bootstrap_intervals(self.scores, list(self.metrics), most=RESAMPLES)
        return {**intervals, "accuracy": accuracy_interval(self.scores.num_correct, self.scores.num_samples)}

    @property
    def temperature(self) -> float:
        """By which calibrated probabilities have their logits divided; 1 without a calibration."""
        return 1.0 if self.calibration is None else self.calibration.temperature

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """As the classifier answers, calibrated where it is: [N, num_known]."""
        return self.probabilities_at(self.temperature)

    def probabilities_at(self, temperature: float) -> npt.NDArray[np.float64]:
        """As the classifier would answer with another temperature: [N, num_known]."""
        return tempered(self.logits, temperature)

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """What the classifier said before calibration: [N, num_known]."""
        assert self.scores.logits is not None
        return self.scores.logits[:, : self.num_known]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 [N], numbers of the true classes in ``classes``."""
        return self.scores.labels

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """bool [N], whether the likeliest class is the true one."""
        return np.equal(self.scores.labels, self.scores.predictions)

    @property
    def extra_classes(self) -> tuple[str, ...]:
        """Classes of images that the classifier lacks."""
        return self.classes[self.num_known :]

    @property
    def missing_classes(self) -> tuple[str, ...]:
        """Classes of the classifier without an image."""
        seen = set(self.labels.tolist())
        return tuple(name for number, name in enumerate(self.classes[: self.num_known]) if number not in seen)

    def known(self) -> Evaluation:
        """The same of those images whose class the classifier has."""
        rows = np.flatnonzero(self.labels < self.num_known)
        chosen, scores = self.classes[: self.num_known], self.scores
        logits = None if scores.logits is None else scores.logits[rows, : self.num_known]
        kept = Scores(
            scores.labels[rows],
            scores.predictions[rows],
            scores.ranks[rows],
            scores.losses[rows],
            self.num_known,
            logits,
        )
        images = tuple(self.images[row] for row in rows)
        return Evaluation(chosen, self.num_known, images, kept, self.calibration, self.unreadable)

    def class_rows(self) -> list[dict[str, object]]:
        """Precision, recall with its 95 % interval, F1 and number of images of every class."""
        confusion = self.scores.confusion
        rows = class_table(confusion, self.classes)
        for number, row in enumerate(rows):
            images = int(confusion[number].sum())
            low, high = accuracy_interval(int(confusion[number, number]), images) if images else (math.nan, math.nan)
            row |= {"recall_low": low, "recall_high": high}
        return rows

    def confused_pairs(self, limit: int | None = None) -> list[tuple[str, str, int]]:
        """True class, predicted class and number of images, the most frequent confusion first."""
        confusion = self.scores.confusion
        truth, predicted = np.nonzero(confusion - np.diag(np.diag(confusion)))
        counts = confusion[truth, predicted]
        order = np.argsort(-counts, kind="stable")[:limit]
        return [(self.classes[truth[i]], self.classes[predicted[i]], int(counts[i])) for i in order]

    def most_wrong(self, limit: int | None = None) -> list[int]:
        """Places of the images that got a wrong answer, the one whose own class got the least probability first."""
        wrong = np.flatnonzero(~self.correct)
        lacking, confidence = self.labels >= self.num_known, self.probabilities.max(axis=1)
        own = self.probabilities[np.arange(len(lacking)), self.labels.clip(max=self.num_known - 1)]
        own = np.where(lacking, 0.0, own)
        order = sorted(wrong.tolist(), key=lambda place: (own[place], -confidence[place]))
        return order[:limit]

    def calibration_figures(self, temperature: float = 1.0) -> dict[str, float]:
        """``log_loss``, ``ece`` and ``adaptive_ece`` at a temperature; 1: before calibration."""
        return calibration_figures(self.logits, self.labels, temperature)

    def reliability(self, temperature: float = 1.0) -> list[ReliabilityBin]:
        """Confidence and accuracy in bins of equal width, at a temperature; 1: before calibration."""
        return reliability_bins(self.probabilities_at(temperature).max(axis=1), self.correct)

    def to_pandas(self) -> pd.DataFrame:
        """A row per image: path, label, prediction, probability, probability_of_label, rank (1: the likeliest), right.

        Probabilities are calibrated where the classifier is.
        """
        import pandas as pd

        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, object]]:
        """Those of ``to_pandas``."""
        return [
            {
                "path": path,
                "label": self.classes[label],
                "prediction": self.classes[prediction],
                "probability": float(row[prediction]),
                "probability_of_label": float(row[label]) if label < self.num_known else 0.0,
                "rank": int(rank) + 1,
                "right": bool(label == prediction),
            }
            for path, label, prediction, rank, row in zip(
                self.paths, self.labels, self.scores.predictions, self.scores.ranks, self.probabilities, strict=True
            )
        ]

    @property
    def _names(self) -> Sequence[str]:
        lacks = bool(self.extra_classes)
        return [
            name
            for name, metric in METRICS.items()
            if not (metric.binary and (lacks or self.num_known != 2))
            and not (name == "top_5" and self.num_known <= TOP_5)
            and not (name == "log_loss" and lacks)
        ]
