"""A study in pictures, by Optuna's own plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as drawn

MIN_TRIALS = 2


def write_plots(study: optuna.Study, folder: Path, objectives: Sequence[str]) -> None:
    """Write history, importance, parallel coordinates, slices and rates, as far as the trials go.

    For several objectives: the Pareto front.
    """
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < MIN_TRIALS:
        return
    if len(objectives) > 1:
        if len(objectives) <= 3:
            _save(lambda: drawn.plot_pareto_front(study, target_names=list(objectives)), folder / "pareto.png")
        return
    (name,) = objectives
    _save(lambda: drawn.plot_optimization_history(study, target_name=name), folder / "history.png")
    _save(lambda: drawn.plot_parallel_coordinate(study, target_name=name), folder / "parallel.png")
    _save(lambda: drawn.plot_slice(study, target_name=name), folder / "slice.png")
    if any("_lr" in key for trial in completed for key in trial.params):
        _save(lambda: _draw_rates(study, completed, name), folder / "rates.png")
    if len({trial.value for trial in completed}) > 1:  # equal values have no cause
        _save(lambda: drawn.plot_param_importances(study, target_name=name), folder / "importance.png")


def _draw_rates(study: optuna.Study, completed: Sequence[FrozenTrial], objective: str) -> None:
    """The objective against each learning rate on a logarithmic axis; pruned trials hollow, at their last value."""
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    rates = sorted({key for trial in completed for key in trial.params if "_lr" in key})
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    figure, axes = pyplot.subplots(1, len(rates), squeeze=False, sharey=True, figsize=(4 * len(rates) + 1, 4))
    for axis, key in zip(axes[0], rates, strict=False):
        for trials, filled in ((completed, True), (pruned, False)):
            points = [(trial.params[key], trial.value) for trial in trials if key in trial.params]
            points = [(x, y) for x, y in points if y is not None]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            axis.scatter(x, y, c="C0" if filled else "none", edgecolors="C0", label="ended" if filled else "pruned")
        axis.set(xscale="log", xlabel=key)
        axis.xaxis.set_minor_formatter(NullFormatter())  # labels between the decades overlap
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel(objective)
    axes[0][0].legend()
    figure.suptitle("Learning rates")


def _save(plot: Callable[[], Any], path: Path) -> None:
    from matplotlib import pyplot

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of the layout
        pyplot.switch_backend("agg")
        plot()
        pyplot.gcf().savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close("all")
