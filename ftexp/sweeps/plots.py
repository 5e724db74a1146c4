"""Plots of a study; most of them are Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.colors import ListedColormap
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawn

MIN_TRIALS = 2
COLUMNS = 3
# The lightest colour of a line (mean of red, green and blue) that is visible on white.
LIGHTEST = 0.8


def write_plots(study: optuna.Study, folder: Path, objectives: Sequence[str]) -> None:
    """Write the plots of history, importance, parallel coordinates, slices and rates that the trials allow.

    For several objectives, write the Pareto front.

    Args:
        study: the study.
        folder: the folder for the files.
        objectives: names of the objectives.
    """
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < MIN_TRIALS:
        return
    if len(objectives) > 1:
        if len(objectives) <= 3:
            _save(lambda: drawn.plot_pareto_front(study, target_names=list(objectives)), folder / "pareto.png")
        return
    (name,) = objectives
    settings = sorted({key for trial in completed for key in trial.params})
    rates = [key for key in settings if "_lr" in key]
    _save(lambda: drawn.plot_optimization_history(study, target_name=name), folder / "history.png")
    _save(lambda: _draw_parallel(study, settings, name), folder / "parallel.png")
    _save(lambda: _draw_settings(study, settings, name), folder / "slice.png")
    if rates:
        _save(lambda: _draw_settings(study, rates, name), folder / "rates.png")
    if len({trial.value for trial in completed}) > 1:  # importance is not defined for equal values
        _save(lambda: drawn.plot_param_importances(study, target_name=name), folder / "importance.png")


def _draw_parallel(study: optuna.Study, settings: Sequence[str], objective: str) -> None:
    """Draw Optuna's plot, wide enough for its axes, and with complete names."""
    from matplotlib import pyplot

    axis = drawn.plot_parallel_coordinate(study, params=list(settings), target_name=objective)
    figure = pyplot.gcf()
    figure.set_size_inches(2 + 2 * len(settings), 5)
    for bar in [other for other in figure.axes if other.get_label() == "<colorbar>"]:
        bar.remove()  # it repeats the first axis, and covers the labels of the last one
    for lines in axis.collections:
        shades = lines.get_cmap()(np.linspace(0, 1, 256))
        lines.set_cmap(ListedColormap(shades[shades[:, :3].mean(axis=1) < LIGHTEST]))
    names = [name.replace(".", ".\n") for name in (objective, *settings)]
    axis.set_xticks(range(len(names)), names, rotation=0, ha="center")


def _draw_settings(study: optuna.Study, settings: Sequence[str], objective: str) -> None:
    """Plot the objective against each setting; pruned trials are hollow, at the value of their best checkpoint."""
    from matplotlib import pyplot

    columns = min(COLUMNS, len(settings))
    rows = -(-len(settings) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, squeeze=False, sharey=True, figsize=(3.2 * columns + 1, 3 * rows), layout="constrained"
    )
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    for axis, key in zip(grid.flat, settings, strict=False):
        for state, filled in ((TrialState.COMPLETE, True), (TrialState.PRUNED, False)):
            points = [
                (_axis_position(trial, key), trial.value)
                for trial in trials
                if trial.state == state and key in trial.params
            ]
            if points:
                x, y = zip(*points, strict=True)
                label = "ended" if filled else "pruned"
                axis.scatter(x, y, c="C0" if filled else "none", edgecolors="C0", label=label)
        _scale(axis, next(trial.distributions[key] for trial in trials if key in trial.params))
        axis.set_xlabel(key)
        axis.grid(alpha=0.3)
    for axis in grid.flat[len(settings) :]:
        axis.set_visible(False)
    for row in grid:
        row[0].set_ylabel(objective)
    labels = {
        label: handle for axis in grid.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if len(labels) > 1:
        figure.legend(list(labels.values()), list(labels), loc="outside upper right", ncols=2)


def _axis_position(trial: FrozenTrial, key: str) -> float:
    """The coordinate of a value on its axis; of a choice, its number."""
    distribution = trial.distributions[key]
    return distribution.to_internal_repr(trial.params[key])


def _scale(axis: Any, distribution: BaseDistribution) -> None:
    from matplotlib.ticker import NullFormatter

    if isinstance(distribution, CategoricalDistribution):
        axis.set_xticks(range(len(distribution.choices)), map(str, distribution.choices), rotation=30, ha="right")
        axis.set_xlim(-0.5, len(distribution.choices) - 0.5)
    elif getattr(distribution, "log", False):
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())  # labels between the decades overlap


def _save(plot: Callable[[], Any], path: Path) -> None:
    from matplotlib import pyplot

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # about the layout
        pyplot.switch_backend("agg")
        plot()
        figure = pyplot.gcf()
        figure.suptitle("")  # the report and the file name say what it is
        for axis in figure.axes:
            axis.set_title("")
            axis.set_title("", loc="left")
        figure.savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close("all")
