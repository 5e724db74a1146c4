"""The picture of a learning curve: what was measured, the law through it, and its band up to twice as many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ftexp.probe.curve import Errors
from ftexp.probe.power_law import PowerLaw, quantiles
from ftexp.report.plots import BLUE, GREEN, GREY, ORANGE, save, short_name

COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's
NUM_POINTS = 60


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Attributes:
        label: the name of the score, or of the class whose recall it is.
        errors: as measured.
        law: through them.
        best: the score without an error; None: the error is the score.
    """

    label: str
    errors: Errors
    law: PowerLaw | None
    best: float | None

    def score(self, error: np.ndarray) -> np.ndarray:
        """Scores of errors."""
        return error if self.best is None else self.best - error


def plot_learning_curve(lines: Sequence[Line], now: int, path: Path) -> None:
    """Plot the metric with its band and, beside it, the classes whose recall still rises.

    Args:
        lines: the metric, then classes, those that rise most first.
        now: the number of images that there are.
        path: the PNG file to write.
    """
    classes = lines[1 : 1 + len(COLORS)]
    figure = Figure(figsize=(11.0 if classes else 6.5, 4.5), dpi=120, layout="constrained")
    panels = figure.subplots(1, 2 if classes else 1, squeeze=False)[0]
    _draw(panels[0], lines[0], BLUE, now, band=True)
    panels[0].set_ylabel(lines[0].label)
    for line, color in zip(classes, COLORS, strict=False):
        _draw(panels[1], line, color, now, band=False)
    if classes:
        panels[1].set_ylabel("recall")
        more = len(lines) - 1 - len(classes)
        title = "classes whose recall still rises" + (f" (and {more} more)" if more else "")
        panels[1].set_title(title, fontsize=10, color=GREY)
    for axes in panels:
        _finish(axes, lines[0].errors.sizes, now)
    save(figure, path)


def _draw(axes: Axes, line: Line, color: str, now: int, *, band: bool) -> None:
    sizes = line.errors.sizes
    low, high = (line.score(one) for one in np.nanquantile(line.errors.draws, [0.025, 0.975], axis=0))
    middle = line.score(line.errors.values)
    reach = np.abs(np.stack([middle - np.minimum(low, high), np.maximum(low, high) - middle]))
    label = "measured, with 95 % intervals" if band else short_name(line.label)
    axes.errorbar(
        sizes, middle, reach if band else None, fmt="o", markersize=4, linewidth=1.2, color=color, label=label
    )
    if line.law is None:
        return
    ahead = np.geomspace(sizes[0], 2 * now, NUM_POINTS)
    told = np.array([quantiles(line.law.error(size)) for size in ahead])
    axes.plot(ahead, line.score(told[:, 1]), color=color, linewidth=1.6, label="power law" if band else None)
    if band:
        edges = line.score(told[:, 0]), line.score(told[:, 2])
        axes.fill_between(ahead, *edges, color=color, alpha=0.15, linewidth=0, label="95 % band")


def _finish(axes: Axes, sizes: np.ndarray, now: int) -> None:
    axes.axvline(now, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, label=f"now, {now:,} images")
    axes.set_xscale("log")
    axes.set_xticks([*sizes[::-2], 2 * now])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("training images")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(loc="best", frameon=False).get_texts():
        text.set_parse_math(False)  # names of classes can have dollar signs
