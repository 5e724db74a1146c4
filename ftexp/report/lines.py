"""The lines that a run shows on the terminal: one for each epoch, for the gate's verdict and for the result."""

from __future__ import annotations

from collections.abc import Mapping

from ftexp.evaluation.best import Best
from ftexp.evaluation.gate import SIGNIFICANCE, Verdict
from ftexp.evaluation.history import EpochRecord
from ftexp.evaluation.intervals import accuracy_interval
from ftexp.evaluation.scores import Scores
from ftexp.inference.calibration import Calibration
from ftexp.metric_names import METRICS


def epoch_line(record: EpochRecord, metric: str, num_epochs: int) -> str:
    """The line of an epoch.

    Args:
        record: the epoch.
        metric: ``train.metric``, which is shown beside accuracy and macro F1.
        num_epochs: number of epochs of all phases together.
    """
    return (
        f"{record.phase:<8} epoch {record.epoch:2d}/{num_epochs}  loss {record.train_loss:.4f}  "
        f"val loss {record.val_loss:.4f}  {shown_metrics(record.val, metric)}  "
        f"{record.images_per_second:4.0f} images/s  {record.seconds:5.1f} s{'  best' if record.best else ''}"
    )


def result_line(best: Best, test: Scores | None, metric: str) -> str:
    """The last line of a run: the test metrics, or the best validation metric if the test split is not scored.

    Args:
        best: the best epoch.
        test: the scores of the test split; None: it is not scored.
        metric: ``train.metric``.
    """
    if test is None:
        value = best.scores.metric(metric)
        epoch = f"epoch {best.record.epoch}" if best.record.epoch else "the solved start"
        return f"validation {METRICS[metric].label} {value:.4f} ({epoch})"
    low, high = accuracy_interval(test.num_correct, test.num_samples)
    return (
        f"test accuracy {test.accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}, {test.num_samples} images)  "
        f"{shown_metrics(test.metrics(best.record.val), metric, without='accuracy')}"
    )


def calibration_line(calibration: Calibration) -> str:
    """The temperature, and what it does to the validation scores."""
    before, after = calibration.uncalibrated, calibration.calibrated
    return (
        f"temperature {calibration.temperature:.4f}: validation log loss {before['log_loss']:.4f} -> "
        f"{after['log_loss']:.4f}, calibration error {before['ece']:.4f} -> {after['ece']:.4f}"
    )


def shown_metrics(values: Mapping[str, float], metric: str, without: str = "") -> str:
    """Accuracy, macro F1 and ``train.metric``, each with its name.

    Args:
        values: the value of each metric.
        metric: ``train.metric``.
        without: a metric to leave out.
    """
    names = [name for name in dict.fromkeys(("accuracy", "macro_f1", metric)) if name != without]
    return "  ".join(f"{METRICS[name].label} {values[name]:.4f}" for name in names)


def explain_verdict(name: str, verdict: Verdict, metric: str, num_samples: int) -> str:
    """The line with the decision of the gate about a phase.

    Args:
        name: name of the phase.
        verdict: the decision.
        metric: ``train.metric``, which the gate compares.
        num_samples: number of validation images.
    """
    outcome = "kept" if verdict.kept else "dropped, and the weights before it restored"
    p_value = "" if verdict.p_value is None else f", p = {verdict.p_value:.3f}"
    return (
        f"{name} {outcome}: validation {METRICS[metric].label} {verdict.before:.4f} -> {verdict.after:.4f} "
        f"(of {num_samples} images, {verdict.gained} newly right and {verdict.lost} newly wrong{p_value})"
    )


def explain_skipped(best_case: Verdict, metric: str, num_samples: int) -> str:
    """Why the gate could not keep a phase that was therefore not begun.

    Args:
        best_case: the verdict on a phase that gets every validation image right.
        metric: ``train.metric``, which the gate compares.
        num_samples: number of validation images.
    """
    if best_case.min_errors is not None:
        return (
            f"{best_case.gained} of {num_samples} images are wrong, fewer than stage.min_errors={best_case.min_errors}"
        )
    rise = f"validation {METRICS[metric].label} would go from {best_case.before:.4f} to {best_case.after:.4f}"
    if best_case.p_value is None:
        return f"even with all {num_samples} images right, {rise}, too little for stage.gate=better and its margin"
    return (
        f"{best_case.gained} of {num_samples} images are still wrong; even with all right, {rise} with "
        f"p = {best_case.p_value:.3f}, and stage.gate=significant needs less than {SIGNIFICANCE:g}"
    )


def labels_line(suspects: int, judged: int) -> str:
    """How many labels look wrong, and what shows them."""
    if not suspects:
        return f"none of {judged} looks wrong to heads that did not see the image"
    return (
        f"about {suspects} of {judged} look{'s' * (suspects == 1)} wrong to heads that did not see the image; "
        "python -m ftexp.labels with the settings of this run shows them"
    )
