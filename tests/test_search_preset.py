"""Which preset a search has."""

from __future__ import annotations

import pytest
from conftest import Compose

from ftexp.search_preset import choose_preset
from ftexp.sweeps.space import build_space

OPTIONS = {"sweep": "lr", "stage": "head"}


def preset(configure: Compose, *arguments: str, stage: str = "head") -> str:
    return choose_preset(configure(f"stage={stage}", *arguments), {**OPTIONS, "stage": stage}, arguments).name


def test_a_solved_head_is_searched_by_what_it_depends_on(configure: Compose) -> None:
    config = configure("stage=head")
    chosen = choose_preset(config, OPTIONS, [])
    space = build_space(chosen.space, chosen.idle, [], OPTIONS, [], lambda _: [])
    assert chosen.name == "head"
    assert set(space.ranges) == {"head.depth", "head.strength", "loss.label_smoothing"}


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        ("head", ("optimizer.head_lr=0.01",)),
        ("head", ("head.solver=sgd",)),
        ("head", ("augment=light",)),
        ("partial", ()),
    ],
)
def test_one_that_is_trained_by_steps_by_its_rates(configure: Compose, stage: str, arguments: tuple[str, ...]) -> None:
    assert preset(configure, *arguments, stage=stage) == "lr"


def test_a_searched_rate_is_of_steps(configure: Compose) -> None:
    arguments = ["optimizer.head_lr=tag(log, interval(1e-4, 1e-1))"]
    assert choose_preset(configure("stage=head"), OPTIONS, arguments).name == "lr"


def test_a_preset_that_is_named_is_kept(configure: Compose) -> None:
    assert preset(configure, "sweep=lr") == "lr"


@pytest.mark.parametrize("argument", ["sweep.confirm=3", "sweep.trials_per_gpu=2", "sweep.objectives=[val_loss]"])
def test_what_holds_for_any_search_chooses_none(configure: Compose, argument: str) -> None:
    assert preset(configure, argument) == "head"


@pytest.mark.parametrize("key", ["sweep.space", "+sweep.space.loss", "sweep.idle", "+sweep.idle.stage"])
def test_a_part_of_a_preset_is_kept(configure: Compose, key: str) -> None:
    assert choose_preset(configure("stage=head"), OPTIONS, [f"{key}=x"]).name == "lr"


def test_every_setting_of_the_preset_exists(configure: Compose) -> None:
    for strength in (1e-5, 10.0):
        assert configure("stage=head", "sweep=head", f"head.strength={strength}").head.strength == strength
