"""The files of an evaluation: one for programs, tables, and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ftexp.errors import ConfigError
from ftexp.evaluation.calibration import NUM_BINS
from ftexp.files.json_files import write_json
from ftexp.inference.evaluation import Evaluation
from ftexp.report.most_wrong import WrongImage, draw_most_wrong
from ftexp.report.plots import plot_confusion_matrix
from ftexp.report.reliability_plot import plot_reliability
from ftexp.report.tables import write_rows

# Images that are drawn, and listed in the JSON file; predictions.csv has all of them.
NUM_MOST_WRONG = 20
NUM_PAIRS = 50


def write_evaluation(
    evaluation: Evaluation, folder: Path, facts: Mapping[str, object] | None = None, title: str = "images"
) -> None:
    """Write everything about an evaluation into a new folder.

    Args:
        facts: what else there is to know of it, such as the run and its engine; it leads ``evaluation.json``.
        title: what the images are, for the confusion matrix.

    Raises:
        ConfigError: when the folder is there and not empty.
    """
    claim(folder)
    write_json(folder / "evaluation.json", {**(facts or {}), **evaluation_content(evaluation)})
    write_rows(folder / "classes.csv", evaluation.class_rows())
    write_rows(folder / "predictions.csv", evaluation.rows())
    if evaluation.unreadable:
        write_rows(folder / "bad_images.csv", [{"path": path, "reason": why} for path, why in evaluation.unreadable])
    plot_confusion_matrix(evaluation.scores.confusion, evaluation.classes, folder / "confusion_matrix.png", title)
    panels = {"uncalibrated": evaluation.reliability()}
    if evaluation.calibration is not None:
        panels[f"calibrated, T = {evaluation.temperature:.2f}"] = evaluation.reliability(evaluation.temperature)
    plot_reliability(panels, folder / "reliability.png")
    draw_most_wrong(_most_wrong(evaluation), folder / "most_wrong.png")


def claim(folder: Path) -> None:
    """Make a folder.

    Raises:
        ConfigError: when it is there and not empty: no file is ever written over.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty. Give another --output, or remove it.")
    folder.mkdir(parents=True, exist_ok=True)


def evaluation_content(evaluation: Evaluation) -> dict[str, object]:
    """What ``evaluation.json`` holds of an evaluation."""
    return {
        "num_images": evaluation.scores.num_samples,
        "num_unreadable": len(evaluation.unreadable),
        "metrics": _metrics(evaluation),
        "classes": {"missing": list(evaluation.missing_classes), "extra": list(evaluation.extra_classes)},
        "metrics_of_known_classes": _metrics(evaluation.known()) if evaluation.extra_classes else None,
        "calibration": {
            "num_bins": NUM_BINS,
            "uncalibrated": evaluation.calibration_figures(),
            "bins": [asdict(one) for one in evaluation.reliability()],
            **calibrated_content(evaluation),
        },
        "most_confused": [
            {"class": truth, "predicted": predicted, "images": count}
            for truth, predicted, count in evaluation.confused_pairs(NUM_PAIRS)
        ],
        "most_wrong": [
            {
                "path": one.image.path,
                "class": one.label,
                "predicted": one.prediction,
                "probability": one.probability,
                "probability_of_class": one.probability_of_label,
            }
            for one in _most_wrong(evaluation)
        ],
    }


def calibrated_content(evaluation: Evaluation) -> dict[str, object]:
    """The calibrated figures, and what the conformal sets and the threshold for abstaining reach; empty without."""
    calibration, probabilities = evaluation.calibration, evaluation.probabilities
    if calibration is None:
        return {}
    content: dict[str, object] = {
        "temperature": calibration.temperature,
        "calibrated": evaluation.calibration_figures(calibration.temperature),
        "sets": None,
        "abstain": None,
    }
    known = evaluation.labels < evaluation.num_known
    if (rule := calibration.sets) is not None:
        sets = rule.of(probabilities)
        covered = known & sets[range(len(sets)), evaluation.labels.clip(max=evaluation.num_known - 1)]
        content["sets"] = {
            "method": rule.method,
            "chosen_coverage": rule.coverage,
            "coverage": float(covered.mean()),
            "mean_size": float(sets.sum(axis=1).mean()),
        }
    if calibration.abstain is not None:
        answered = probabilities.max(axis=1) >= calibration.abstain.threshold
        content["abstain"] = {
            "threshold": calibration.abstain.threshold,
            "chosen_accuracy": calibration.abstain.accuracy,
            "answered": float(answered.mean()),
            "accuracy": float(evaluation.correct[answered].mean()) if answered.any() else math.nan,
        }
    return content


def _metrics(evaluation: Evaluation) -> dict[str, object]:
    intervals = {f"{name}_ci95": list(interval) for name, interval in evaluation.intervals.items()}
    return {**evaluation.metrics, **intervals}


def _most_wrong(evaluation: Evaluation) -> list[WrongImage]:
    rows = evaluation.rows()
    return [
        WrongImage(
            evaluation.images[place],
            str(rows[place]["label"]),
            str(rows[place]["prediction"]),
            float(str(rows[place]["probability"])),
            float(str(rows[place]["probability_of_label"])),
        )
        for place in evaluation.most_wrong(NUM_MOST_WRONG)
    ]
