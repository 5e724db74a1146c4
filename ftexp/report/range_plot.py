"""Reports a range test: a plot, a table, and the settings to paste."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ftexp.report.plots import BLUE, GREY, ORANGE, save
from ftexp.report.tables import write_rows
from ftexp.training.range_test import RangeTest

log = logging.getLogger(__name__)


def report_ranges(tests: Sequence[RangeTest], folder: Path) -> None:
    """Write ``lr_find.csv`` and ``lr_find.png``, and log the suggested rates."""
    rows = [
        {"setting": test.key, "rate": rate, "loss": loss}
        for test in tests
        for rate, loss in zip(test.rates, test.losses, strict=True)
    ]
    write_rows(folder / "lr_find.csv", rows)
    plot_ranges(tests, folder / "lr_find.png")
    for test in tests:
        if test.suggestion is None:
            log.warning("lr_find the loss does not depend on %s: look at the labels, or unfreeze more", test.key)
    for test in tests:
        if test.suggestion is not None and test.phase is not None:
            log.info("lr_find %s of phase %s in stage.phases: %.1e", test.key, test.phase, test.suggestion)
    common = [test for test in tests if test.suggestion is not None and test.phase is None]
    settings = [f"{test.key}={test.suggestion:.1e}" for test in common]
    log.info("lr_find %s  %s", " ".join(settings) or "no suggestion", folder)


def plot_ranges(tests: Sequence[RangeTest], path: Path) -> None:
    """Plot the mean loss over the rate, with one panel per test and the suggestions marked.

    Args:
        tests: the range tests.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(4.5 * len(tests), 3.8), dpi=120, layout="constrained")
    for axes, test in zip(figure.subplots(1, len(tests), squeeze=False)[0], tests, strict=True):
        axes.plot(test.rates, test.losses, color=BLUE, linewidth=1.6)
        if test.suggestion is not None:
            axes.axvline(test.suggestion, color=ORANGE, linestyle="--", label=f"suggested: {test.suggestion:.1e}")
            axes.legend(frameon=False)
        axes.set_xscale("log")
        axes.set_xlabel(test.key)
        axes.set_ylabel("training loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=GREY)
    save(figure, path)
