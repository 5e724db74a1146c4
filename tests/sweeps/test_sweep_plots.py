"""The pictures of a study: which there are, and that many settings do not crowd each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
from matplotlib import pyplot
from optuna.trial import TrialState
from PIL import Image

from ftexp.sweeps.plots import _draw_parallel, write_plots


def make_study(num_choices: int) -> optuna.Study:
    """Six trials over a rate and some choices; the last one pruned, the one before it failed."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(6):
        trial = study.ask()
        value = trial.suggest_float("optimizer.head_lr", 1e-4, 1e-1, log=True)
        for i in range(num_choices):
            trial.suggest_categorical(f"choice.{i}", ["a", 2, None])
        trial.report(value, 1)
        if number < 4:
            study.tell(trial, value)
        else:
            study.tell(trial, state=TrialState.FAIL if number == 4 else TrialState.PRUNED)
    return study


def test_the_pictures_grow_with_the_number_of_settings(tmp_path: Path) -> None:
    sizes = {}
    for num_choices in (1, 6):
        folder = tmp_path / str(num_choices)
        folder.mkdir()
        write_plots(make_study(num_choices), folder, ["val_accuracy"])
        sizes[num_choices] = {path.stem: Image.open(path).size for path in folder.iterdir()}
        assert set(sizes[num_choices]) == {"history", "importance", "parallel", "rates", "slice"}
    few, many = sizes[1], sizes[6]
    assert many["parallel"][0] > 2 * few["parallel"][0]
    assert many["slice"][1] > 2 * few["slice"][1]  # three in a row, and then the next row
    assert many["rates"] == few["rates"]


def test_the_worst_trial_can_be_seen_on_white() -> None:
    pyplot.switch_backend("agg")
    _draw_parallel(make_study(1), ["choice.0", "optimizer.head_lr"], "val_accuracy")
    (lines,) = pyplot.gcf().axes[0].collections
    lines.update_scalarmappable()
    shades = np.asarray(lines.get_edgecolor())[:, :3].mean(axis=1)
    assert len(shades) == 4
    assert shades.max() < 0.8
    pyplot.close("all")


def test_one_completed_trial_is_no_picture(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    write_plots(study, tmp_path, ["val_loss"])
    assert list(tmp_path.iterdir()) == []
