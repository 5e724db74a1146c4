"""What ``auto`` comes to by the table in conf/recipe."""

from __future__ import annotations

import pytest
from conftest import Compose
from tiny_runs import NAMES, fresh_network

from ftexp.config import Config
from ftexp.finetune.phases import plan_phases
from ftexp.finetune.recipe import decide, foreseen, settle

TABLE = ("recipe.budgets.cnn.part.updates=100", "recipe.budgets.vit.part.updates=200")
BOUNDS = tuple(
    f"recipe.budgets.{family}.part.{edge}_epochs={n}"
    for family in ("cnn", "vit")
    for edge, n in (("min", 4), ("max", 30))
)


def settled(config: Config, family: str = "cnn", num_samples: int = 100, updates_per_epoch: int = 10) -> Config:
    return settle(config, decide(config, family, num_samples, updates_per_epoch))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "updates_per_epoch", "epochs"),
    [("cnn", 10, 10), ("cnn", 9, 12), ("cnn", 1, 30), ("cnn", 1000, 4), ("vit", 10, 20)],
)
def test_epochs_follow_from_a_budget_of_updates_between_two_bounds(
    configure: Compose, family: str, updates_per_epoch: int, epochs: int
) -> None:
    config = configure("stage=partial", "stage.epochs=auto", *TABLE, *BOUNDS)
    assert settled(config, family, updates_per_epoch=updates_per_epoch).stage.phases[0].epochs == epochs


def test_each_phase_has_the_budget_of_what_it_trains(configure: Compose) -> None:
    table = [
        f"recipe.budgets.cnn.{kind}={{updates: {n}, min_epochs: 1}}"
        for kind, n in (("head", 10), ("part", 20), ("all", 30))
    ]
    config = configure("stage=staged", "stage.epochs=auto", *table)
    phases = settled(config).stage.phases
    assert [phase.epochs for phase in phases] == [1, 2, 3]
    assert [phase.epochs for phase in settled(configure("stage=staged", *table)).stage.phases] == [6, 6, 6]


@pytest.mark.parametrize(
    ("optimizer", "family", "rates"),
    [
        ("adamw", "cnn", (1e-3, 5e-4, 0.7, 1e-2)),
        ("adamw", "vit", (1e-3, 4.06e-5, 0.65, 5e-2)),
        ("adamw", "convnext", (1e-3, 1e-4, 0.9, 1e-2)),
        ("sgd", "cnn", (1e-1, 1e-2, 0.7, 1e-4)),
        ("lion", "vit", (2e-4, 8.12e-6, 0.65, 2.5e-1)),
    ],
)
def test_rates_follow_from_the_family_and_the_optimizer(
    configure: Compose, optimizer: str, family: str, rates: tuple[float, ...]
) -> None:
    chosen = settled(configure(f"optimizer={optimizer}"), family).optimizer
    assert (chosen.head_lr, chosen.backbone_lr, chosen.block_decay, chosen.weight_decay) == rates


def test_a_given_value_wins_over_the_table(configure: Compose) -> None:
    config = configure("stage.epochs=3", "optimizer.backbone_lr=7e-5", "augment=light")
    decisions = decide(config, "vit", 100, 10)
    assert [decision.key for decision in decisions] == [
        f"optimizer.{key}" for key in ("head_lr", "block_decay", "weight_decay")
    ]
    chosen = settle(config, decisions)
    assert (chosen.optimizer.backbone_lr, chosen.stage.phases[0].epochs) == (7e-5, 3)
    assert chosen.augment == config.augment


@pytest.mark.parametrize(("num_samples", "expected"), [(5000, (0.5, "trivial")), (5001, (0.7, "none"))])
def test_the_augmentation_follows_from_size_and_phase_and_one_strength_can_be_set(
    configure: Compose, num_samples: int, expected: tuple[float, str]
) -> None:
    config = settled(configure("stage=auto", "augment.horizontal_flip=0"), num_samples=num_samples)
    _, last, everything = (phase.augment for phase in plan_phases(config, NAMES, fresh_network()))
    assert not last.is_random
    assert (everything.crop_scale, everything.policy, everything.horizontal_flip) == (*expected, 0)


def test_an_option_that_is_given_wins_over_that_of_the_stage(configure: Compose) -> None:
    phases = plan_phases(settled(configure("stage=auto", "augment=none")), NAMES, fresh_network())
    assert not any(phase.augment.is_random for phase in phases)


def test_the_default_stage_halves_the_rates_of_the_last_block_and_waits_five_epochs_for_it(configure: Compose) -> None:
    config = settled(configure())
    _, last, everything = plan_phases(config, NAMES, fresh_network())
    assert [phase.patience for phase in (last, everything)] == [5, None]
    for phase, factor in ((last, 0.5), (everything, 1)):
        assert phase.optimizer.head_lr == config.optimizer.head_lr * factor
        assert phase.optimizer.backbone_lr == config.optimizer.backbone_lr * factor
    assert config.train.ema == 0.98
    assert config.stage.on_dropped == "continue", "where the last block gains nothing, all blocks may"
    assert configure("stage=staged").stage.on_dropped == "stop"


def test_before_the_data_is_known_a_plan_has_the_most_epochs_that_there_can_be(configure: Compose) -> None:
    config = configure("stage=auto")
    most = [config.recipe.budgets.cnn.head, config.recipe.budgets.cnn.part, config.recipe.budgets.cnn.all]
    assert [phase.epochs for phase in foreseen(config).stage.phases] == [budget.max_epochs for budget in most]
