"""How often the classifier is right, by how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftexp.evaluation.calibration import ReliabilityBin, calibration_error
from ftexp.report.plots import BLUE, GREY, ORANGE, save


def plot_reliability(panels: Mapping[str, Sequence[ReliabilityBin]], path: Path) -> None:
    """Draw a reliability diagram per panel, with the number of images in each bin below it.

    Args:
        panels: title -> bins of equal width.
        path: the PNG to write.

    Source: DeGroot and Fienberg (1983); as drawn by Guo et al. (2017, arXiv 1706.04599).
    """
    figure = Figure(figsize=(4.4 * len(panels), 5.4), dpi=120, layout="constrained")
    rows = figure.subplots(2, len(panels), sharex=True, height_ratios=(4, 1), squeeze=False)
    for column, (title, bins) in enumerate(panels.items()):
        _draw(rows[0, column], title, bins)
        _count(rows[1, column], bins)
    rows[0, 0].set_ylabel("share that is right")
    rows[1, 0].set_ylabel("images")
    save(figure, path)


def _draw(axes: Axes, title: str, bins: Sequence[ReliabilityBin]) -> None:
    filled = [one for one in bins if one.count]
    left, width = [one.low for one in filled], [one.high - one.low for one in filled]
    accuracy = np.array([one.accuracy for one in filled])
    confidence = np.array([one.confidence for one in filled])
    axes.bar(left, accuracy, width, align="edge", color=BLUE, edgecolor="white", label="right")
    low = np.minimum(accuracy, confidence)
    axes.bar(
        left,
        np.abs(accuracy - confidence),
        width,
        low,
        align="edge",
        color="none",
        edgecolor=ORANGE,
        hatch="////",
        linewidth=0.8,
        label="gap to the confidence",
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.1)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(f"{title}: ECE {calibration_error(bins):.3f} ({len(bins)} bins)", fontsize=10, color=GREY)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _count(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    axes.bar(
        [one.low for one in bins],
        [one.count for one in bins],
        [one.high - one.low for one in bins],
        align="edge",
        color=GREY,
        edgecolor="white",
    )
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.spines[["top", "right"]].set_visible(False)
