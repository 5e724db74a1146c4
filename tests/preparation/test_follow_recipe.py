"""The decisions of a run: told, kept, and taken over by a run that is resumed."""

from __future__ import annotations

import json
import logging

import pytest
from conftest import Compose
from tiny_runs import NAMES, fresh_network, resumed
from workplaces import Workplace, workplace

from ftexp.errors import InterruptedRunError
from ftexp.finetune.phases import plan_phases
from ftexp.preparation.follow_recipe import follow_recipe
from ftexp.preparation.head_solver import choose_solver, solved_as_in
from ftexp.run import run
from ftexp.training.step import Step

__all__ = ["workplace"]


def test_each_decision_is_told_with_its_reason(configure: Compose, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config, network = configure("stage=auto", "train.batch_size=10"), fresh_network()
    planned = choose_solver(config, plan_phases(config, NAMES), ())
    settled, phases, _ = follow_recipe(config, network, planned, num_samples=995)
    assert [phase.solved for phase in solved_as_in(planned, phases)] == [True, False, False]
    assert settled.stage.phases[1].epochs == phases[1].epochs == 8
    assert caplog.messages == [
        "recipe  head_lr 0.001  backbone_lr 0.0005  block_decay 0.7  weight_decay 0.01: adamw on a cnn "
        "(recipe.rates.adamw.cnn)",
        "recipe  last: 8 epochs, for 500 updates at 100 in an epoch, but 8 to 30 epochs (recipe.budgets.cnn.part)",
        "recipe  last: augmentation none, for 995 training images (recipe.augment.part.small)",
        "recipe  all: 10 epochs, for 1000 updates at 100 in an epoch, but 8 to 30 epochs (recipe.budgets.cnn.all)",
        "recipe  all: augmentation medium, for 995 training images (recipe.augment.all.small)",
    ]


def test_a_resumed_run_keeps_what_it_decided_though_the_table_has_changed(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = workplace.folder / "run", ("stage=partial", "stage.epochs=auto")
    table = ("recipe.budgets.cnn.part.min_epochs=1", "recipe.budgets.cnn.part.max_epochs=1")

    def stopped(_: Step) -> None:
        raise InterruptedRunError(15)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", stopped)
        with pytest.raises(InterruptedRunError):
            run(workplace.begin(*settings, *table), folder)
    decided = json.loads((folder / "run.json").read_text())["decided"]
    assert {k: decided[-1][k] for k in ("key", "value")} == {"key": "stage.phases.0.epochs", "value": 1}
    result = run(resumed(workplace.begin(*settings), folder), folder)
    assert len(result.history) == 1
