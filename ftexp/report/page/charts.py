"""Charts as numbers for the page's template, which draws them as SVG in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from ftexp.evaluation.calibration import ReliabilityBin
from ftexp.evaluation.history import EpochRecord
from ftexp.metric_names import METRICS
from ftexp.report.plots import LEAST_SPAN

# More points than this have no dots.
MAX_DOTS = 40
# Of an axis of rates; the last drop of a cosine to zero would squeeze the rest together.
DECADES = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """The size of a drawing, and the edges of what is drawn between its numbers and names, in the SVG's units."""

    width: int = 480
    height: int = 260
    left: int = 58
    right: int = 470
    top: int = 26
    bottom: int = 226


FRAME = Frame()


@dataclass(frozen=True, slots=True)
class Line:
    """Lines of one colour, broken where a phase ends. ``parts``: of points as SVG wants them; ``dots``: the points."""

    name: str
    colour: str
    parts: list[str]
    dots: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything in the SVG's units.

    Attributes:
        bands: left, width and name of the phases.
        x_ticks, y_ticks: where, and what stands there.
        mark: where the best epoch is; None: nowhere.
        bars: left, top, width and height.
        diagonal: whether the line of equal values is drawn.
    """

    title: str
    x_name: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bands: list[tuple[float, float, str]]
    mark: float | None = None
    bars: tuple[tuple[float, float, float, float, str], ...] = ()
    diagonal: bool = False


def curves(history: Sequence[EpochRecord], metric: str, best_epoch: int) -> list[Chart]:
    """Loss, validation scores and, if there are any, learning rates over the epochs.

    Args:
        history: one record per epoch, at least one.
        metric: that decided; it is drawn beside accuracy and macro F1 where its range is like theirs.
        best_epoch: whose weights were kept.
    """
    scores = {"accuracy": "a", "macro_f1": "c"}
    if METRICS[metric].maximize:
        scores.setdefault(metric, "b")
    columns = {
        "Loss": {"train": ("a", "train_loss"), "validation": ("b", "val_loss")},
        "Validation scores": {METRICS[name].label: (colour, f"val_{name}") for name, colour in scores.items()},
    }
    if any(record.lr_head or record.lr_backbone for record in history):  # a head that is solved has no rate
        columns["Learning rate"] = {"head": ("a", "lr_head"), "block next to the head": ("b", "lr_backbone")}
    return [_curve(title, lines, history, best_epoch) for title, lines in columns.items()]


def reliability(bins: Sequence[ReliabilityBin]) -> Chart:
    """Accuracy by confidence; a calibrated network is on the diagonal."""
    x, y = _scale(0, 1, FRAME.left, FRAME.right), _scale(0, 1, FRAME.bottom, FRAME.top)
    ticks = [(value / 4, f"{value / 4:g}") for value in range(5)]
    bars = [
        (x(one.low), y(one.accuracy), x(one.high) - x(one.low), y(0) - y(one.accuracy), _said(one))
        for one in bins
        if one.count
    ]
    return Chart(
        "Accuracy by confidence",
        "confidence",
        [],
        [(x(value), text) for value, text in ticks],
        [(y(value), text) for value, text in ticks],
        [],
        bars=tuple(bars),
        diagonal=True,
    )


def _said(one: ReliabilityBin) -> str:
    return f"{one.count:,} images said {one.confidence:.2f}, {one.accuracy:.2f} are right"


def _curve(
    title: str, columns: Mapping[str, tuple[str, str]], history: Sequence[EpochRecord], best_epoch: int
) -> Chart:
    rows = [(record, record.as_row()) for record in history]
    values = {
        name: [(float(r.epoch), _finite(row[column])) for r, row in rows] for name, (_, column) in columns.items()
    }
    known = [value for points in values.values() for _, value in points if value is not None]
    least = LEAST_SPAN if title == "Validation scores" else 0
    y, y_ticks = _log_axis(known) if title == "Learning rate" else _axis(known, least)
    first, last = (0 if best_epoch == 0 else history[0].epoch) - 0.5, history[-1].epoch + 0.5
    x = _scale(first, last, FRAME.left, FRAME.right)
    epochs = MaxNLocator(nbins=8, integer=True, min_n_ticks=1).tick_values(first, last)
    phases = _phases(history)
    lines = []
    for name, (colour, _) in columns.items():
        parts = [values[name][start:end] for start, end, _ in phases]
        drawn = [[(x(at), y(value)) for at, value in part if value is not None] for part in parts]
        dots = [point for part in drawn for point in part]
        if dots:
            texts = [" ".join(f"{left:.1f},{top:.1f}" for left, top in part) for part in drawn if part]
            lines.append(Line(name, colour, texts, dots if len(history) <= MAX_DOTS else []))
    return Chart(
        title,
        "epoch",
        lines,
        [(x(epoch), f"{epoch:g}") for epoch in epochs if first < epoch < last],
        y_ticks,
        [
            (x(history[start].epoch - 0.5), x(history[end - 1].epoch + 0.5) - x(history[start].epoch - 0.5), name)
            for start, end, name in phases
        ],
        x(best_epoch),
    )


def _phases(history: Sequence[EpochRecord]) -> list[tuple[int, int, str]]:
    """First record, the one after the last, and name of each phase."""
    starts = [i for i, record in enumerate(history) if i == 0 or record.phase != history[i - 1].phase]
    return [(start, end, history[start].phase) for start, end in zip(starts, [*starts[1:], len(history)], strict=True)]


def _axis(values: Sequence[float], least: float) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    ticks = MaxNLocator(nbins=5).tick_values(low, high)
    y = _scale(float(ticks[0]), float(ticks[-1]), FRAME.bottom, FRAME.top)
    return y, [(y(float(tick)), f"{tick:.6g}") for tick in ticks]


def _log_axis(values: Sequence[float]) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    positive = [value for value in values if value > 0] or [1.0]
    high = math.ceil(math.log10(max(positive)) - 1e-9)
    low = max(math.floor(math.log10(min(positive)) + 1e-9), high - DECADES)
    low = min(low, high - 1)
    scale = _scale(low, high, FRAME.bottom, FRAME.top)
    ticks = [(scale(power), f"1e{power}" if power else "1") for power in range(low, high + 1)]
    return lambda value: scale(max(math.log10(value), low) if value > 0 else low), ticks


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: round(start + (value - low) / span * (end - start), 1)


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
