"""Plots of a run, drawn without a display and without pyplot's global state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from ftexp.evaluation.history import EpochRecord
from ftexp.metric_names import METRICS

# Okabe and Ito's palette, whose colours can be distinguished with any colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
MAX_CLASSES_WITH_COUNTS = 20
MAX_TICK_LABELS = 50
MAX_LABEL_LENGTH = 24
# The least height of the axis of scores.
LEAST_SPAN = 0.01


def plot_curves(
    history: Sequence[EpochRecord], path: Path, best_epoch: int | None = None, metric: str = "accuracy"
) -> None:
    """Plot loss, validation scores and learning rates over the epochs, with phases shaded and the best epoch marked.

    Args:
        history: one record per epoch, at least one.
        path: the PNG file to write.
        best_epoch: the epoch whose weights were kept in the end; 0: the solved start; None: none is marked.
        metric: the metric that selects the best epoch; drawn beside accuracy and macro F1 if its range is like theirs.
    """
    assert history, "no epoch to draw"
    figure = Figure(figsize=(8.0, 8.5), dpi=120)  # without a layout engine, which would take as long as all else
    losses, scores, rates = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    figure.subplots_adjust(left=0.11, right=0.985, bottom=0.065, top=0.96, hspace=0.08)
    _draw(losses, history, {"train": (BLUE, "train_loss"), "validation": (ORANGE, "val_loss")})
    losses.set_ylabel("loss")
    _draw(scores, history, _score_lines(metric))
    _spread(scores)
    scores.set_ylabel("validation score")
    _draw(rates, history, {"head": (BLUE, "lr_head"), "backbone, block next to the head": (ORANGE, "lr_backbone")})
    _scale_rates(rates, history)
    rates.set_ylabel("learning rate")
    rates.set_xlabel("epoch")
    rates.set_xlim((0 if best_epoch == 0 else history[0].epoch) - 0.5, history[-1].epoch + 0.5)
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (losses, scores, rates):
        _shade_phases(axes, history, labelled=axes is losses)
        _mark_best(axes, best_epoch, labelled=axes is scores)
        axes.legend(loc="best", frameon=False)
        axes.yaxis.set_label_coords(-0.095, 0.5)
    save(figure, path)


def plot_confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str], path: Path, split: str) -> None:
    """Plot a confusion matrix; the colour is the share of the true class.

    Args:
        confusion: the confusion matrix, int64 [C, C]; rows are the true classes.
        classes: names of the C classes.
        path: the PNG file to write.
        split: the scored split, ``test`` or ``validation``.
    """
    num_classes = len(classes)
    assert confusion.shape == (num_classes, num_classes)
    totals = confusion.sum(axis=1, keepdims=True)
    shares = confusion / np.maximum(totals, 1)
    side = float(np.clip(3.2 + 0.42 * num_classes, 4.5, 11.0))
    figure = Figure(figsize=(side + 0.8, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    # A square-root scale, so that one error in forty is still visible beside a diagonal near 1.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    bar.set_ticks([0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0])
    _name_classes(axes, classes, side)
    if num_classes <= MAX_CLASSES_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    correct = np.trace(confusion)
    axes.set_title(f"{split}: {correct:,} of {totals.sum():,} right", fontsize=10, color=GREY)
    save(figure, path)


def _draw(axes: Axes, history: Sequence[EpochRecord], curves: dict[str, tuple[str, str]]) -> None:
    """Draw curves with a gap between phases, because each phase has its own optimizer and schedule."""
    marker = "o" if len(history) <= 40 else ""
    for label, (color, name) in curves.items():
        epochs, values = [], []
        for i, record in enumerate(history):
            if i and record.phase != history[i - 1].phase:
                epochs.append(record.epoch - 0.5)
                values.append(math.nan)
            value = record.as_row()[name]
            epochs.append(float(record.epoch))
            values.append(math.nan if value is None else float(value))
        if not all(map(math.isnan, values)):
            axes.plot(epochs, values, marker=marker, markersize=3.5, linewidth=1.6, color=color, label=label)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _score_lines(metric: str) -> dict[str, tuple[str, str]]:
    """The scores that share an axis: label -> colour and column."""
    colors = {"accuracy": BLUE, "macro_f1": GREEN}
    if METRICS[metric].maximize:
        colors = {**colors, metric: colors.get(metric, ORANGE)}
    return {METRICS[name].label: (color, f"val_{name}") for name, color in colors.items()}


def _spread(axes: Axes) -> None:
    """Show a point of accuracy at least: closer ticks would be written as an offset and millionths of it."""
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)


def _scale_rates(axes: Axes, history: Sequence[EpochRecord]) -> None:
    """Set a log axis of at most four decades; a cosine that ends near zero would leave too little room for the rest.

    A solved head alone has no rate but zero.
    """
    rates = [rate for record in history for rate in (record.lr_head, record.lr_backbone) if rate]
    if rates:
        axes.set_yscale("log")
        label_plainly(axes.yaxis)
        axes.set_ylim(max(min(rates), max(rates) * 1e-4) / 1.6, max(rates) * 1.6)
    else:
        axes.set_yticks([0], ["0"])


class _PowerOfTen(LogFormatter):
    """Writes all numbers that it labels in one way: 1 is "1e+00" beside "1e-01"."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return str(self.fix_minus(f"{x:.0e}")) if super().__call__(x, pos) else ""


def label_plainly(axis: Axis) -> None:
    """Write the numbers of a log axis as text, such as "1e-03": a formula would be parsed for a tenth of a second."""
    axis.set_major_formatter(_PowerOfTen())
    axis.set_minor_formatter(_PowerOfTen(labelOnlyBase=False))


def _shade_phases(axes: Axes, history: Sequence[EpochRecord], *, labelled: bool) -> None:
    """Shade every second phase, and write the names of phases above the plot."""
    starts = [i for i, record in enumerate(history) if i == 0 or record.phase != history[i - 1].phase]
    size = 10 if len(starts) <= 6 else 7
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(history)], strict=True)):
        left, right = history[start].epoch - 0.5, history[end - 1].epoch + 0.5
        if number % 2:
            axes.axvspan(left, right, color="#f2f2f2", zorder=0, linewidth=0)
        if number:
            axes.axvline(left, color="#bbbbbb", linewidth=0.8, zorder=1)
        if labelled:
            at = axes.get_xaxis_transform()
            name = history[start].phase
            axes.text((left + right) / 2, 1.02, name, transform=at, ha="center", color=GREY, fontsize=size)


def _mark_best(axes: Axes, epoch: int | None, *, labelled: bool) -> None:
    if epoch is not None:
        label = f"best epoch, {epoch}" if labelled else None
        axes.axvline(epoch, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, label=label, zorder=1)


def _name_classes(axes: Axes, classes: Sequence[str], side_inches: float) -> None:
    step = math.ceil(len(classes) / MAX_TICK_LABELS)
    ticks = list(range(0, len(classes), step))
    names = [short_name(classes[i]) for i in ticks]
    size = float(np.clip(72 * 0.55 * side_inches / len(ticks), 5.0, 9.0))
    turned = len(ticks) * max(map(len, names)) * size / 110 > side_inches - 1.5  # a character is some 0.6 em wide
    axes.set_xticks(ticks, names, fontsize=size, parse_math=False, rotation=90 if turned else 0)
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def short_name(name: str) -> str:
    """A name for a plot: printable, and cut where it is long."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return printable if len(printable) <= MAX_LABEL_LENGTH else printable[: MAX_LABEL_LENGTH - 1] + "…"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    with warnings.catch_warnings():
        # Class names with characters that the font lacks are drawn as boxes, without a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path)
