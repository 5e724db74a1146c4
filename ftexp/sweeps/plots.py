"""A study in pictures, by Optuna's own plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn

MIN_TRIALS = 2


def write_plots(study: optuna.Study, folder: Path, objectives: Sequence[str]) -> None:
    """Write history, importance, parallel coordinates and slices, as far as the trials go.

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
    if len({trial.value for trial in completed}) > 1:  # equal values have no cause
        _save(lambda: drawn.plot_param_importances(study, target_name=name), folder / "importance.png")


def _save(plot: Callable[[], Any], path: Path) -> None:
    from matplotlib import pyplot

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)  # of the layout
        pyplot.switch_backend("agg")
        plot()
        pyplot.gcf().savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close("all")
