"""A solved head in the folder of a run: ``solution.json`` with the certificate, and the path of strengths as a plot."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from ftexp.files.json_files import write_json
from ftexp.metric_names import METRICS
from ftexp.report.plots import BLUE, GREY, ORANGE, label_plainly, save
from ftexp.training.solve import SolvedHead

SOLUTION, SOLUTION_PICTURE = "solution.json", "solution.png"
CERTIFICATE = ("strength", "objective", "duality_gap", "gradient_norm", "iterations")

log = logging.getLogger(__name__)


def write_solution(head: SolvedHead, folder: Path) -> None:
    """Log what was solved, and write ``solution.json`` and ``solution.png``."""
    log.info("%s", solved_line(head))
    write_json(folder / SOLUTION, solution_content(head))
    plot_strengths(head, folder / SOLUTION_PICTURE)


def solved_line(head: SolvedHead) -> str:
    """The line of a solved head: features, strength, seconds, and how far it is from the optimum."""
    solution, path = head.chosen.solution, head.chosen.path
    return (
        f"solved  the head on {head.num_features:,} features of {head.num_images:,} images: strength "
        f"{solution.strength:.2g}, of {len(path)} tried, by validation {METRICS[head.chosen.metric].label}; "
        f"{head.solve_seconds:.1f} s, duality gap {solution.duality_gap:.1g}"
    )


def solution_content(head: SolvedHead) -> dict[str, object]:
    """The content of ``solution.json``: the certificate, and a row for every strength."""
    chosen = head.chosen
    return {
        **{name: getattr(chosen.solution, name) for name in CERTIFICATE},
        "train_loss": chosen.solution.loss,
        "metric": chosen.metric,
        "num_images": head.num_images,
        "num_features": head.num_features,
        "blocks": list(head.blocks),
        "pass_seconds": head.pass_seconds,
        "solve_seconds": head.solve_seconds,
        "path": [asdict(point) for point in chosen.path],
    }


def plot_strengths(head: SolvedHead, path: Path) -> None:
    """Plot losses and the metric over the strengths, with the chosen one marked.

    Args:
        head: the solved head.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(7.0, 5.5), dpi=120)  # without a layout engine, which would take as long as all else
    losses, scores = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.13, right=0.985, bottom=0.095, top=0.98, hspace=0.08)
    points = head.chosen.path
    strengths = [point.strength for point in points]
    lines = (
        (losses, "train", BLUE, [point.train_loss for point in points]),
        (losses, "validation", ORANGE, [point.val_loss for point in points]),
        (scores, METRICS[head.chosen.metric].label, ORANGE, [point.val_metric for point in points]),
    )
    for axes, label, color, values in lines:
        axes.plot(strengths, values, marker="o", markersize=3.5, linewidth=1.6, color=color, label=label)
    for axes, name in ((losses, "loss"), (scores, "validation score")):
        axes.axvline(head.chosen.solution.strength, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, label="chosen")
        axes.set_ylabel(name)
        axes.yaxis.set_label_coords(-0.11, 0.5)
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", frameon=False)
    scores.set_xscale("log")
    label_plainly(scores.xaxis)
    scores.invert_xaxis()
    scores.set_xlabel("strength of the penalty, from strong to weak")
    save(figure, path)
