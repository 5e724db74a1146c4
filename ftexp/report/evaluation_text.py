"""An evaluation as lines for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ftexp.errors import listed
from ftexp.evaluation.comparison import Comparison
from ftexp.inference.evaluation import Evaluation
from ftexp.inference.reproduction import Reproduction
from ftexp.metric_names import METRICS
from ftexp.report.evaluation_files import calibrated_content
from ftexp.report.tables import format_table

# Classes that a table on the terminal has; classes.csv has all of them.
MAX_CLASSES = 20
NUM_PAIRS = 5
NUM_WRONG = 5


def evaluation_lines(evaluation: Evaluation, reproduced: Reproduction | None = None) -> Iterator[str]:
    """What a reader wants to know first, most of it a line each.

    Args:
        reproduced: the scores that the run logged beside those of now, of its own validation split.
    """
    yield from _class_lines(evaluation)
    yield ""
    yield format_table([_metric_row(evaluation, name) for name in evaluation.metrics])
    yield ""
    if reproduced is not None:
        yield _reproduction_line(reproduced)
    yield from _calibration_lines(evaluation)
    yield ""
    rows = evaluation.class_rows()
    shown = sorted(rows, key=lambda row: float(str(row["f1"])))[:MAX_CLASSES] if len(rows) > MAX_CLASSES else rows
    yield format_table(shown)
    if len(rows) > len(shown):
        yield f"(the {len(shown)} classes with the lowest F1 of {len(rows)}; classes.csv has all of them)"
    yield ""
    yield from _mistake_lines(evaluation)


def comparison_lines(names: Sequence[str], comparisons: Sequence[Comparison], metric: str) -> Iterator[str]:
    """A table with a row per pair of runs, and how to read it.

    Args:
        names: of the runs.
        metric: whose differences were compared.
    """
    yield format_table(comparison_rows(names, comparisons, metric))
    yield (
        "gained and lost: images that only the second and only the first gets right; p: McNemar's exact test, "
        "two-sided; p (Holm): adjusted for the number of pairs; the interval is of the difference, by paired bootstrap."
    )


def comparison_rows(names: Sequence[str], comparisons: Sequence[Comparison], metric: str) -> list[dict[str, object]]:
    """Rows of the table of ``comparison_lines``, and of ``comparison.csv``."""
    return [
        {
            "first": names[one.first],
            "second": names[one.second],
            f"difference in {METRICS[metric].label}": one.difference,
            "95 % from": one.interval[0],
            "to": one.interval[1],
            "gained": one.gained,
            "lost": one.lost,
            "p": one.p_value,
            "p (Holm)": one.adjusted,
        }
        for one in comparisons
    ]


def metric_rows(
    names: Sequence[str], evaluations: Sequence[Evaluation], metrics: Collection[str] = METRICS
) -> list[dict[str, object]]:
    """A row per run with its metrics, and with the log loss and ECE after calibration where it is calibrated.

    Args:
        metrics: that get a column, as far as they are defined.
    """
    rows: list[dict[str, object]] = []
    for name, one in zip(names, evaluations, strict=True):
        figures = one.calibration_figures(one.temperature)
        after = (
            {"calibrated log loss": figures["log_loss"], "calibrated ECE": figures["ece"]} if one.calibration else {}
        )
        shown = {METRICS[metric].label: value for metric, value in one.metrics.items() if metric in metrics}
        rows.append({"run": name, **shown, "ECE": one.calibration_figures()["ece"], **after})
    return rows


def _class_lines(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.unreadable:
        path, why = evaluation.unreadable[0]
        yield f"unread  {len(evaluation.unreadable)} images cannot be read and are not scored, {path} for one: {why}"
    if evaluation.extra_classes:
        known = evaluation.known()
        number = evaluation.scores.num_samples - known.scores.num_samples
        yield (
            f"extra   the classifier lacks {listed(evaluation.extra_classes, 5)}: their {number} images count as wrong."
            f" Of the {known.scores.num_samples} others, {known.scores.accuracy:.4f} are right"
        )
    if evaluation.missing_classes:
        yield f"missing no image of {listed(evaluation.missing_classes, 5)}: the scores say nothing about them"


def _metric_row(evaluation: Evaluation, name: str) -> dict[str, object]:
    low, high = evaluation.intervals[name]
    return {"metric": METRICS[name].label, "value": evaluation.metrics[name], "95 % from": low, "to": high}


def _reproduction_line(reproduced: Reproduction) -> str:
    if reproduced.exact:
        return "logged  exactly these scores were logged by the run"
    off = {name: abs(reproduced.now[name] - value) for name, value in reproduced.logged.items()}
    widest = max(off, key=off.__getitem__)
    why = "; ".join(reproduced.differences) or "none"
    return (
        f"logged  other scores were logged by the run: {widest} {reproduced.logged[widest]:.6g}, here "
        f"{reproduced.now[widest]:.6g}. Known differences: {why}"
    )


def _calibration_lines(evaluation: Evaluation) -> Iterator[str]:
    before = evaluation.calibration_figures()
    yield f"calib.  uncalibrated: {_figures(before)}"
    if evaluation.calibration is None:
        yield "calib.  not calibrated: python -m ftexp.calibrate RUN"
        return
    content: dict[str, Any] = calibrated_content(evaluation)
    yield f"calib.  calibrated, temperature {evaluation.temperature:.3f}: {_figures(content['calibrated'])}"
    if (sets := content["sets"]) is not None:
        yield (
            f"sets    {sets['method'].upper()} sets for {sets['chosen_coverage']:.0%} hold the class of "
            f"{sets['coverage']:.1%} of the images, {sets['mean_size']:.2f} classes each"
        )
    if (abstain := content["abstain"]) is not None:
        yield (
            f"abstain from probability {abstain['threshold']:.4f} on, {abstain['answered']:.1%} of the images are "
            f"answered, {abstain['accuracy']:.1%} of these rightly"
        )


def _figures(figures: dict[str, float]) -> str:
    return f"log loss {figures['log_loss']:.4f}, ECE {figures['ece']:.4f}, adaptive ECE {figures['adaptive_ece']:.4f}"


def _mistake_lines(evaluation: Evaluation) -> Iterator[str]:
    pairs = evaluation.confused_pairs()
    if not pairs:
        yield "wrong   no image"
        return
    yield "confused " + "; ".join(f"{truth} taken for {said}: {count}" for truth, said, count in pairs[:NUM_PAIRS])
    rows = evaluation.rows()
    for place in evaluation.most_wrong(NUM_WRONG):
        row = rows[place]
        yield (
            f"wrong   {row['path'] or f'image {place + 1}'}: {row['label']} {row['probability_of_label']:.3f}, said "
            f"{row['prediction']} {row['probability']:.3f}"
        )
