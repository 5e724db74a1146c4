"""Which trials the pruner ends, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import optuna
import pytest
from conftest import Compose
from optuna.trial import TrialState

from ftexp.config import PhaseConfig, StageConfig
from ftexp.errors import PrunedError
from ftexp.evaluation.history import EpochRecord
from ftexp.sweeps import trial as trial_module
from ftexp.sweeps.pruning import PruningObserver, build_pruner
from ftexp.sweeps.study import EPOCHS
from ftexp.sweeps.trial import PRUNED, TrialAddress, run_trial

ONE_PHASE = StageConfig(epochs=1, phases=[PhaseConfig("head", "head", epochs=1)])


def record(
    epoch: int, *, loss: float = 1.0, accuracy: float = 0.5, macro_f1: float = 0.5, phase: str = "head"
) -> EpochRecord:
    scores = {"val_loss": loss, "val": {"accuracy": accuracy, "macro_f1": macro_f1}}
    others = {"train_loss": 1.0, "grad_norm": 1.0, "head_change": 0.1, "lr_head": 0.1, "lr_backbone": None}
    return EpochRecord(phase=phase, epoch=epoch, images_per_second=1.0, seconds=1.0, best=True, **scores, **others)


def follow(observer: PruningObserver, records: Sequence[EpochRecord]) -> int:
    """As a run calls it: asked before each epoch, told after it; returns how many epochs there were."""
    for done, one in enumerate(records):
        try:
            observer.before_epoch()
        except PrunedError:
            return done
        observer(one)
    return len(records)


def epochs_run(epochs: int, values: list[float], pruner: str = "hyperband") -> list[int]:
    """How long each trial goes on whose value is the same in all of its epochs."""
    study = optuna.create_study(direction="maximize", study_name="fixed")  # the name decides on the brackets
    lengths = []
    for value in values:
        study.pruner = build_pruner(pruner, epochs)  # anew in every trial, as a process of its own has it
        trial = study.ask()
        observer = PruningObserver(trial, "val_accuracy", "accuracy", ONE_PHASE)
        lengths.append(follow(observer, [record(epoch, accuracy=value) for epoch in range(1, epochs + 1)]))
        pruned = lengths[-1] < epochs
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
    return lengths


@pytest.mark.parametrize(("epochs", "ends"), [(2, {1}), (15, {1, 3}), (30, {1, 3, 9})])
def test_hyperband_ends_every_hopeless_trial_before_half_of_the_epochs(epochs: int, ends: set[int]) -> None:
    lengths = epochs_run(epochs, [1.0 - i / 100 for i in range(60)])
    first_of_brackets = [length for length in lengths if length == epochs]
    assert len(first_of_brackets) == len(ends)
    assert set(lengths) == {*ends, epochs}


def test_hyperband_ends_no_trial_that_is_better_than_all_before() -> None:
    assert epochs_run(15, [i / 100 for i in range(20)]) == [15] * 20


@pytest.mark.parametrize("epochs", [1, 3, 9, 27])
def test_no_trial_is_pruned_that_has_run_all_of_its_epochs(epochs: int) -> None:
    """Hyperband's own rungs are at these numbers; what it says there is not asked any more."""
    lengths = epochs_run(epochs, [1.0 - i / 100 for i in range(40)])
    assert set(lengths) == {1: {1}, 3: {1, 3}, 9: {1, 3, 9}, 27: {1, 3, 9, 27}}[epochs]
    assert lengths.count(epochs) == {1: 40, 3: 1, 9: 2, 27: 3}[epochs]


# Accuracy is best at the second and, equally, the third epoch; the loss is lowest at the first and the last.
RECORDS = [
    record(1, loss=0.5, accuracy=0.6, macro_f1=0.4),
    record(2, loss=0.9, accuracy=0.8, macro_f1=0.3),
    record(3, loss=0.7, accuracy=0.8, macro_f1=0.6),
    record(4, loss=0.1, accuracy=0.7, macro_f1=0.5),
]


@pytest.mark.parametrize(
    ("objective", "metric", "told"),
    [
        ("val_accuracy", "accuracy", [0.6, 0.8, 0.8, 0.8]),
        ("val_loss", "accuracy", [0.5, 0.9, 0.9, 0.9]),
        ("val_macro_f1", "accuracy", [0.4, 0.3, 0.3, 0.3]),
        ("val_loss", "macro_f1", [0.5, 0.5, 0.7, 0.7]),
        ("val_macro_f1", "macro_f1", [0.4, 0.4, 0.6, 0.6]),
    ],
)
def test_the_pruner_is_told_the_value_of_the_best_checkpoint_so_far(
    objective: str, metric: str, told: list[float]
) -> None:
    """By the metric, the first of equals, as the run chooses it: what the trial's value would be if it ended there."""
    study = optuna.create_study(direction="minimize" if objective == "val_loss" else "maximize")
    trial = study.ask()
    follow(PruningObserver(trial, objective, metric, ONE_PHASE), RECORDS)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == dict(enumerate(told, 1))
    study.tell(trial, state=TrialState.PRUNED)
    assert study.trials[0].value == told[-1], "what tables, plots and samplers have of a pruned trial"


@pytest.mark.parametrize(
    ("gate", "margin", "told"),
    [
        ("better", 0.0, [0.9, 0.7, 0.7, 0.3, 0.3, 0.3]),
        ("better", 0.06, [0.9, 0.7, 0.7, 0.7, 0.7, 0.2]),
        ("off", 0.0, [0.9, 0.7, 0.5, 0.3, 0.3, 0.2]),
        ("significant", 0.0, [0.9, 0.7, 0.7, 0.3, 0.3, 0.3]),
    ],
)
def test_a_later_phase_counts_where_the_gate_would_keep_it(
    gate: Literal["better", "significant", "off"], margin: float, told: list[float]
) -> None:
    """Accuracies of 0.6 and 0.8 in the first phase, 0.7, 0.85 and 0.84 in the second; the third is as good at once."""
    phases = ["head", "head", "last", "last", "last", "all"]
    accuracies, losses = [0.6, 0.8, 0.7, 0.85, 0.84, 0.85], [0.9, 0.7, 0.5, 0.3, 0.1, 0.2]
    if margin:
        accuracies[-1] = 0.92
    given = enumerate(zip(phases, accuracies, losses, strict=True), 1)
    records = [record(epoch, phase=phase, accuracy=value, loss=loss) for epoch, (phase, value, loss) in given]
    study = optuna.create_study()
    stage = replace(ONE_PHASE, gate=gate, margin=margin)
    follow(PruningObserver(study.ask(), "val_loss", "accuracy", stage), records)
    assert list(study.get_trials(deepcopy=False)[0].intermediate_values.values()) == told


def test_a_phase_that_was_dropped_is_not_what_the_next_one_has_to_beat() -> None:
    """``last`` is worse than ``head``, from which ``all`` starts; the first epoch of ``all`` lies in between."""
    phases, accuracies, losses = ["head", "last", "all", "all"], [0.8, 0.6, 0.7, 0.9], [0.5, 0.4, 0.3, 0.2]
    given = enumerate(zip(phases, accuracies, losses, strict=True), 1)
    records = [record(epoch, phase=phase, accuracy=value, loss=loss) for epoch, (phase, value, loss) in given]
    study = optuna.create_study()
    stage = replace(ONE_PHASE, gate="better", on_dropped="continue")
    follow(PruningObserver(study.ask(), "val_loss", "accuracy", stage), records)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.2}


def test_an_epoch_whose_metric_is_not_defined_is_never_the_best() -> None:
    study = optuna.create_study()
    records = [record(1, accuracy=math.nan, loss=0.9), record(2, loss=0.7), record(3, accuracy=math.nan, loss=0.1)]
    follow(PruningObserver(study.ask(), "val_loss", "accuracy", ONE_PHASE), records)
    assert study.get_trials(deepcopy=False)[0].intermediate_values == {1: 0.9, 2: 0.7, 3: 0.7}


def test_a_pruned_run_says_after_which_epoch_and_with_which_value() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=0.6))
    observer = PruningObserver(study.ask(), "val_loss", "accuracy", ONE_PHASE)
    observer.before_epoch()  # nothing is known yet
    observer(RECORDS[0])
    observer.before_epoch()
    observer(RECORDS[1])
    with pytest.raises(PrunedError, match=r"^pruned after epoch 2: val_loss 0\.9000$"):
        observer.before_epoch()


def test_a_trial_reports_by_the_metric_of_its_run(
    configure: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="s", direction="minimize")
    study.set_user_attr(EPOCHS, 9)
    address = TrialAddress(storage, "s", study.ask().number, "none")

    def run(*_: object, observers: list[PruningObserver], **__: object) -> None:
        follow(observers[0], RECORDS)
        raise PrunedError

    monkeypatch.setattr(trial_module, "run", run)
    config = configure("train.metric=macro_f1", "sweep.objectives=[val_loss]", "runtime.device=cpu")
    assert run_trial(config, tmp_path / "0", address, num_jobs=1) == PRUNED
    assert list(study.trials[0].intermediate_values.values()) == [0.5, 0.5, 0.7, 0.7]
