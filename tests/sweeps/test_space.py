"""The space of a search: presets, command line, conditions."""

from __future__ import annotations

import re

import optuna
import pytest
from compositions import composed
from conftest import Compose
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

from ftexp.errors import ConfigError
from ftexp.sweeps.space import Space, build_space
from ftexp.sweeps.sweep_plan import _fill_gaps

PRESET = {"optimizer.head_lr": "tag(log, interval(1e-4, 1e-1))", "optimizer.block_decay": "interval(0.3, 1.0)"}
IDLE = {"stage=head": ["optimizer.block_decay"]}


def build(*arguments: str, stage: str = "partial", preset: dict[str, str] = PRESET) -> Space:
    return build_space(preset, IDLE, arguments, {"stage": stage}, ["stage6", "stage7"], lambda _: [])


def draw(space: Space, count: int) -> list[dict[str, object]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.draw(study.ask()) for _ in range(count)]


def test_nothing_on_the_command_line_is_the_preset() -> None:
    space = build()
    assert space.ranges["optimizer.head_lr"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert space.ranges["optimizer.block_decay"] == FloatDistribution(0.3, 1.0)
    assert not space.listed


def test_the_command_line_adds_overrides_and_takes_out() -> None:
    space = build("optimizer.head_lr=interval(1, 2.5)", "train.batch_size=choice(8, 16)", "optimizer.block_decay=0.5")
    assert space.ranges == {
        "train.batch_size": CategoricalDistribution((8, 16)),
        "optimizer.head_lr": FloatDistribution(1, 2.5),
    }
    assert space.fixed == ("optimizer.block_decay=0.5",)


def test_what_has_no_effect_with_the_chosen_stage_is_not_searched() -> None:
    assert set(build(stage="head").ranges) == {"optimizer.head_lr"}


def test_what_has_no_effect_with_a_drawn_stage_is_not_drawn_for_it() -> None:
    drawn = draw(build("stage=choice(head, full)"), 30)
    assert {values["stage"] for values in drawn} == {"head", "full"}
    for values in drawn:
        assert ("optimizer.block_decay" in values) == (values["stage"] == "full")


def test_plain_lists_alone_are_every_combination_in_the_order_of_a_grid() -> None:
    space = build("stage=head,full", "optimizer.block_decay=0.5,0.7")
    assert space.listed
    assert space.combinations() == [
        {"stage": stage, "optimizer.block_decay": decay} for stage in ("head", "full") for decay in (0.5, 0.7)
    ]
    assert space.idle == {}


@pytest.mark.parametrize("search", ["sweep=lr", "optimizer.head_lr=interval(0.1, 0.2)", "augment=choice(none, light)"])
def test_a_list_beside_a_search_is_a_choice_in_it(search: str) -> None:
    space = build("stage=head,full", search)
    assert not space.listed
    assert {"stage", "optimizer.head_lr"} <= set(space.ranges)


def test_a_star_stands_for_each_block_that_learns() -> None:
    space = build(preset={"optimizer.block_lrs.*": "interval(0.1, 0.2)"})
    assert list(space.ranges) == ["optimizer.block_lrs.stage6", "optimizer.block_lrs.stage7"]


def test_the_configured_values_are_taken_where_they_lie_in_the_space() -> None:
    space = build("stage=choice(head, full)")
    configured = {"stage": "full", "optimizer.head_lr": 5.0, "optimizer.block_decay": 0.7}
    assert space.inside(configured) == {"stage": "full", "optimizer.block_decay": 0.7}
    assert space.inside({"stage": "partial"}) == {}


def test_a_space_with_nothing_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to search: every setting of the space is fixed"):
        build("optimizer.head_lr=1", "optimizer.block_decay=1")


def test_a_preset_without_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("sweep.space.stage=head is not a range; use interval(a, b)")):
        build(preset={"stage": "head"})


def test_a_grid_of_intervals_is_refused() -> None:
    with pytest.raises(ConfigError, match="sampler=grid needs lists"):
        build().combinations()


def test_a_grid_leaves_out_what_makes_no_difference() -> None:
    preset = {"optimizer.block_decay": "choice(0.5, 0.7)"}
    assert build("stage=choice(head, full)", preset=preset).combinations() == [
        {"stage": "head"},
        {"stage": "full", "optimizer.block_decay": 0.5},
        {"stage": "full", "optimizer.block_decay": 0.7},
    ]


@pytest.mark.parametrize(
    ("preset", "idle", "arguments"),
    [
        ({"train.focal_gamma": "interval(1, 3)"}, {}, []),
        (PRESET, {"loss=focal": ["train.focal_gamma"]}, []),
        (PRESET, {"train.focal_gamma=1": []}, []),
        (PRESET, {}, ["train.focal_gamma=1,2"]),
    ],
)
def test_a_setting_that_has_another_name_now_is_refused_before_the_first_trial(
    preset: dict[str, str], idle: dict[str, list[str]], arguments: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"train\.focal_gamma is called loss\.gamma now.*belongs to loss=focal"):
        build_space(preset, idle, arguments, {}, [], lambda _: [])


@pytest.mark.parametrize(("argument", "first"), [("'my pictures',b", "my pictures"), ("choice(a,b)", "a"), ("c", None)])
def test_a_setting_may_have_no_value_but_those_that_are_tried(
    configure: Compose, argument: str, first: str | None
) -> None:
    config = composed(["data=imagefolder"])
    _fill_gaps(
        config, [f"data.root={argument}", "stage=head,full", "train.batch_size=8,16", "+optimizer.block_lrs.x=1,2"]
    )
    assert OmegaConf.select(config, "data.root") == first
    assert config.train.batch_size != 8, "what has a value keeps it"
