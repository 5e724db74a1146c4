"""Which trials the pruner ends, and when."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from ftexp.sweeps.pruning import build_pruner


def epochs_run(epochs: int, values: list[float]) -> list[int]:
    """How long each trial goes on whose value is the same in all of its epochs."""
    study = optuna.create_study(direction="maximize", study_name="fixed")  # the name decides on the brackets
    lengths = []
    for value in values:
        study.pruner = build_pruner("hyperband", epochs)  # anew in every trial, as a process of its own has it
        trial, pruned = study.ask(), False
        for epoch in range(1, epochs + 1):
            trial.report(value, epoch)
            if pruned := trial.should_prune():
                break
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
        lengths.append(epoch)
    return lengths


@pytest.mark.parametrize(("epochs", "ends"), [(2, {1}), (15, {1, 3}), (30, {1, 3, 9})])
def test_hyperband_ends_every_hopeless_trial_before_half_of_the_epochs(epochs: int, ends: set[int]) -> None:
    lengths = epochs_run(epochs, [1.0 - i / 100 for i in range(60)])
    first_of_brackets = [length for length in lengths if length == epochs]
    assert len(first_of_brackets) == len(ends)
    assert set(lengths) == {*ends, epochs}


def test_hyperband_ends_no_trial_that_is_better_than_all_before() -> None:
    assert epochs_run(15, [i / 100 for i in range(20)]) == [15] * 20
