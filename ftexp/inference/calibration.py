"""``calibration.json`` beside a checkpoint, for everything that predicts: the temperature that its run fitted, and what
``python -m ftexp.calibrate`` chose.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ftexp.errors import CheckpointError, DataError
from ftexp.evaluation.calibration import Floats, calibration_figures, fit_temperature
from ftexp.evaluation.conformal import METHODS, Method, prediction_sets
from ftexp.evaluation.scores import Scores
from ftexp.files.file_format import check_format, reading
from ftexp.files.json_files import read_json, write_json
from ftexp.files.run_files import CALIBRATION

# The format of calibration.json; increase it when a field is added, removed, or changes its meaning.
FORMAT = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetRule:
    """Which classes an image may have, with a chosen probability that the true one is among them.

    Attributes:
        method: the conformal score, see ``ftexp.evaluation.conformal.class_scores``.
        coverage: the share of images whose set shall contain their class.
        threshold: of the score.
        reached_coverage, reached_size: coverage and mean number of classes on validation images that the threshold was
            not chosen on (by cross-fitting).
    """

    method: Method
    coverage: float
    threshold: float
    reached_coverage: float
    reached_size: float

    def of(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """Args: calibrated probabilities, float [N, C]. Returns: bool [N, C]."""
        return prediction_sets(probabilities, self.threshold, self.method)


@dataclass(frozen=True, slots=True)
class AbstainRule:
    """From which probability on an answer is given.

    Attributes:
        accuracy: the share of right answers that was asked for.
        threshold: the lowest calibrated probability of an answer.
        reached_answered, reached_accuracy: the share of validation images that got an answer, and the accuracy of these
            answers, with thresholds that were chosen on other images (by cross-fitting). The accuracy is NaN where no
            image got an answer.
    """

    accuracy: float
    threshold: float
    reached_answered: float
    reached_accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one checkpoint.

    Attributes:
        checkpoint_digest: of the checkpoint's file, which tells whether the calibration belongs to it.
        num_samples: the validation images that it was made with.
        temperature: logits are divided by it before the softmax.
        uncalibrated, calibrated: ``log_loss``, ``ece`` and ``adaptive_ece`` on these images.
        sets: None where they were not asked for, or there were too few images.
        abstain: None where it was not asked for, or no threshold reaches the accuracy.
    """

    checkpoint_digest: str
    num_samples: int
    temperature: float
    uncalibrated: dict[str, float]
    calibrated: dict[str, float]
    sets: SetRule | None = None
    abstain: AbstainRule | None = None

    @classmethod
    def of(cls, scores: Scores, checkpoint: Path) -> Calibration:
        """Fit the temperature; where none is the best, it stays 1, which is said.

        Args:
            scores: of the checkpoint's network on the validation images of its run, with their logits.
            checkpoint: the file with its weights.
        """
        logits, labels, temperature = scores.logits, scores.labels, 1.0
        assert logits is not None
        try:
            temperature = fit_temperature(logits, labels)
        except DataError as error:
            log.warning("%s The temperature stays 1.", error)
        return cls(
            checkpoint_digest(checkpoint),
            scores.num_samples,
            temperature,
            calibration_figures(logits, labels),
            calibration_figures(logits, labels, temperature),
        )

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Calibration:
        """What ``asdict`` gave, read back from JSON.

        Raises:
            TypeError, KeyError, ValueError: for anything else.
        """
        sets, abstain = content.pop("sets"), content.pop("abstain")
        calibration = cls(
            **content, sets=_set_rule(sets) if sets else None, abstain=_abstain_rule(abstain) if abstain else None
        )
        if not 0 < calibration.temperature < float("inf"):
            raise ValueError(f"temperature {calibration.temperature}")
        return calibration

    def write(self, checkpoint: Path) -> Path:
        """Write ``calibration.json`` beside the checkpoint, and return its path."""
        file = checkpoint.with_name(CALIBRATION)
        write_json(file, {"format": FORMAT, **asdict(self)})
        return file


def read_calibration(checkpoint: Path) -> Calibration | None:
    """The calibration of a checkpoint.

    Returns:
        None if it was not calibrated, or if the file beside it belongs to another checkpoint, with a warning.

    Raises:
        CheckpointError: when the file is damaged.
        FormatError: when this version of ftexp does not read it.
    """
    file = checkpoint.with_name(CALIBRATION)
    if not file.exists():
        return None
    with reading(file):
        content = read_json(file)
        check_format(content.pop("format", None), FORMAT, file)
        calibration = Calibration.from_content(content)
    if calibration.checkpoint_digest != checkpoint_digest(checkpoint):
        log.warning(
            "%s belongs to another checkpoint than %s and is not used. Run python -m ftexp.calibrate again.",
            file,
            checkpoint.name,
        )
        return None
    return calibration


def threshold_of(calibration: Calibration | None, source: str) -> float:
    """The probability from which on an answer is given, as ``python -m ftexp.calibrate`` chose it.

    Args:
        calibration: of a classifier.
        source: where the classifier was loaded from.

    Raises:
        CheckpointError: when no such threshold was chosen.
    """
    if calibration is None or calibration.abstain is None:
        missing = "was not calibrated" if calibration is None else "has no threshold for abstaining"
        raise CheckpointError(
            f"{source} {missing}. Choose one with: python -m ftexp.calibrate RUN --accuracy 0.95 (then export the run "
            "again, if this is an exported file), or give a number."
        )
    return calibration.abstain.threshold


def checkpoint_digest(checkpoint: Path) -> str:
    """Of the bytes of a checkpoint's file: 32 hexadecimal digits."""
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _set_rule(content: dict[str, Any]) -> SetRule:
    rule = SetRule(**content)
    if rule.method not in METHODS:
        raise ValueError(f"method {rule.method}")
    return rule


def _abstain_rule(content: dict[str, Any]) -> AbstainRule:
    accuracy = content.pop("reached_accuracy")
    return AbstainRule(**content, reached_accuracy=float("nan") if accuracy is None else accuracy)
