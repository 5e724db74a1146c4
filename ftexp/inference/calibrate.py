"""Choosing the calibration of a classifier from its answers on the validation images of its run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from ftexp.errors import DataError
from ftexp.evaluation.conformal import (
    Method,
    accuracy_threshold,
    conformal_threshold,
    cross_fitted_answers,
    cross_fitted_sets,
)
from ftexp.inference.calibration import AbstainRule, Calibration, SetRule
from ftexp.inference.evaluation import Evaluation

log = logging.getLogger(__name__)

COVERAGE, ACCURACY = 0.9, 0.99


def calibrate(
    evaluation: Evaluation,
    checkpoint: Path,
    coverage: float | None = None,
    method: Method = "lac",
    accuracy: float | None = None,
) -> Calibration:
    """Fit the temperature, and choose the thresholds of the conformal sets and of abstaining.

    Args:
        evaluation: of the checkpoint's classifier on the validation images of its run.
        checkpoint: the file with its weights.
        coverage: the share of images whose set shall contain their class; None: ``COVERAGE``, or no sets where there
            are too few images for it.
        method: the conformal score.
        accuracy: the share of answers that shall be right; None: ``ACCURACY``, or no threshold where none reaches it.

    Raises:
        DataError: when the coverage or the accuracy that was asked for cannot be reached with these images.
    """
    fitted = Calibration.of(evaluation.scores, checkpoint)
    return replace(
        fitted,
        sets=_sets(evaluation, fitted.temperature, coverage, method),
        abstain=_abstain(evaluation, fitted.temperature, accuracy),
    )


def _sets(evaluation: Evaluation, temperature: float, coverage: float | None, method: Method) -> SetRule | None:
    wanted = COVERAGE if coverage is None else coverage
    try:
        reached = cross_fitted_sets(evaluation.logits, evaluation.labels, wanted, method)
        probabilities = evaluation.probabilities_at(temperature)
        threshold = conformal_threshold(probabilities, evaluation.labels, wanted, method)
    except DataError as error:
        if coverage is not None:
            raise
        log.warning("%s No sets are chosen.", error)
        return None
    return SetRule(method, wanted, threshold, reached.coverage, reached.mean_size)


def _abstain(evaluation: Evaluation, temperature: float, accuracy: float | None) -> AbstainRule | None:
    wanted = ACCURACY if accuracy is None else accuracy
    confidences = evaluation.probabilities_at(temperature).max(axis=1)
    try:
        threshold = accuracy_threshold(confidences, evaluation.correct, wanted)
        reached = cross_fitted_answers(evaluation.logits, evaluation.labels, wanted)
    except DataError as error:
        if accuracy is not None:
            raise
        log.warning("%s No threshold for abstaining is chosen; --accuracy takes another share.", error)
        return None
    right = reached.num_right / reached.num_answered if reached.num_answered else float("nan")
    return AbstainRule(wanted, threshold, reached.num_answered / reached.num_samples, right)
