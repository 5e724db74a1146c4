"""Hydra's notation for ranges, form by form: each is a distribution, or one message."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ftexp.errors import ConfigError
from ftexp.sweeps.ranges import Range, check_whole_numbers, parse_range, read_range
from ftexp.sweeps.space import build_space

GROUPS = {"augment": ["_augment", "light", "medium", "none", "strong"], "stage": ["full", "head"], "empty": ["_empty"]}


def options_of(group: str) -> list[str]:
    return GROUPS.get(group, [])


def read(line: str) -> Range:
    (override,) = OverridesParser.create().parse_overrides([line])
    return read_range(override, options_of)


@pytest.mark.parametrize(
    ("line", "choices", "listed"),
    [
        ("augment=glob(*)", ["light", "medium", "none", "strong"], True),
        ("augment=glob(*, exclude=none)", ["light", "medium", "strong"], True),
        ("augment=glob([l*, m*])", ["light", "medium"], True),
        ("augment=glob(*, exclude=[n*, strong])", ["light", "medium"], True),
        ("+augment=glob(l*)", ["light"], True),
        ("augment=none,light", ["none", "light"], True),
        ("augment='none',\"light\"", ["none", "light"], True),
        ("augment=null,light", ["null", "light"], True),
        ("augment=choice(none, light)", ["none", "light"], False),
        ("augment=tag(a, b, choice(none, light))", ["none", "light"], False),
        ("augment=sort(none, light)", ["light", "none"], True),
        ("augment=sort(choice(none, light), reverse=true)", ["none", "light"], False),
        ("train.batch_size=8,16,8", [8, 16], True),
        ("train.x=1,true,1.0", [1, True, 1.0], True),
        ("train.wise_ft=[0.1,0.9],[0.2]", ["[0.1,0.9]", "[0.2]"], True),
        ("optimizer.block_lrs=choice({a: 1}, {b: 2})", ["{a:1}", "{b:2}"], False),
        ("train.ema=null,0.9", ["null", 0.9], True),
        ("data.root='a b','c,d'", ["'a b'", "'c,d'"], True),
        ("stage.epochs=int(choice(1.2, 2.4))", [1, 2], False),
        ("stage.epochs=float(range(1, 3))", [1.0, 2.0], False),
    ],
)
def test_lists_and_choices(line: str, choices: list[Any], listed: bool) -> None:
    found = read(line)
    assert isinstance(found.distribution, CategoricalDistribution)
    assert [(type(one), one) for one in found.distribution.choices] == [(type(one), one) for one in choices]
    assert found.listed is listed


@pytest.mark.parametrize(
    ("line", "distribution"),
    [
        ("k=range(1, 5)", IntDistribution(1, 4)),
        ("k=range(5)", IntDistribution(0, 4)),
        ("k=range(5, 1, -2)", IntDistribution(3, 5, step=2)),
        ("k=tag(a, range(1, 5))", IntDistribution(1, 4)),
        ("k=range(0.1, 0.5, 0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("k=interval(1, 10)", FloatDistribution(1, 10)),
        ("k=int(interval(1, 10))", IntDistribution(1, 10)),
        ("k=tag(log, interval(1e-4, 1))", FloatDistribution(1e-4, 1, log=True)),
        ("k=tag(log, int(interval(1, 10)))", IntDistribution(1, 10, log=True)),
    ],
)
def test_numbers(line: str, distribution: object) -> None:
    found = read(line)
    assert found.distribution == distribution
    assert not found.listed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("augment=glob(x*)", r"augment=glob\(x\*\): no option of augment matches\. The options are light, medium,"),
        ("augment=glob(_*)", "no option of augment matches"),
        ("stage.epochs=glob(*)", r"glob matches options of a group, and stage\.epochs has no options"),
        ("empty=glob(*)", "empty has no options"),
        ("augment=lihgt,none", r"augment has no option 'lihgt'\. Did you mean 'light'\? Allowed: light, medium,"),
        ("stage=interval(0, 1)", r"stage is a choice of full, head, not a number\. Write choice\(a, b\)"),
        ("augment=range(1, 3)", "augment is a choice of light, medium, none, strong, not a number"),
        ("stage=head,interval(0, 1)", "a list has plain values, and one of these is a range"),
        ("k=interval(0, 1),interval(2, 3)", "one of these is a range"),
        ("k=choice(1, choice(2, 3))", "one of these is a range"),
        ("stage=glob(*),head", "one of these is a range"),
        ("k=interval(2, 1)", r"the lower end has to come first: interval\(1, 2\)"),
        ("k=interval(nan, 1)", "both ends of an interval must be finite"),
        ("k=int(interval(1, 2)),3", "one of these is a range"),
        ("k=interval(1, inf)", "both ends of an interval must be finite"),
        ("k=tag(log, interval(0, 1))", "with the tag log the lower end must be above 0"),
        ("k=tag(lg, interval(1, 2))", r"there is no tag lg\. The only tag is log"),
        ("k=tag(log, range(1, 9))", r"the tag log is for intervals: tag\(log, interval\(a, b\)\)"),
        ("k=tag(log, choice(1, 9))", "the tag log is for intervals"),
        ("k=range(1, 1)", "must contain at least one value"),
        ("k=shuffle(range(1, 1))", "the list has no values"),
        ("k=range(1, 5, 0)", "requires a nonzero step"),
        ("~k=choice(1, 2)", "~ deletes a setting, which then has no range"),
    ],
)
def test_what_cannot_be_searched_is_one_message(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(line)


@pytest.mark.parametrize("line", ["k=shuffle(1, 2, 3, 4, 5, 6)", "k=shuffle(range(1, 7))"])
def test_a_shuffled_range_has_the_same_order_in_every_call_so_that_a_search_can_go_on(line: str) -> None:
    first = read(line).distribution
    assert all(read(line).distribution == first for _ in range(5))
    assert isinstance(first, CategoricalDistribution)
    assert sorted(first.choices) == [1, 2, 3, 4, 5, 6] != list(first.choices)  # type: ignore[type-var]


def test_a_group_that_is_matched_is_named_by_what_it_was_then() -> None:
    """A study is named after its texts: an option added later makes another one."""
    assert read("augment=glob(*, exclude=none)").text == "light,medium,strong"


@pytest.mark.parametrize(("text", "reason"), [("foo(", "no viable alternative"), ("interval(a, b)", "TypeError while")])
def test_a_preset_that_cannot_be_read_is_one_message(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.space\.optimizer\.head_lr=.* cannot be read: .*" + reason):
        parse_range("optimizer.head_lr", text, options_of)


def test_fractions_for_whole_numbers_are_refused() -> None:
    fractions = FloatDistribution(1, 5)
    with pytest.raises(
        ConfigError, match=r"stage\.epochs=interval\(1, 5\): stage\.epochs takes whole numbers\. Write int\("
    ):
        check_whole_numbers("stage.epochs", fractions, "interval(1, 5)", 3)
    for configured in (3.0, None, "auto", True):
        check_whole_numbers("k", fractions, "interval(1, 5)", configured)
    check_whole_numbers("k", IntDistribution(1, 5), "range(1, 6)", 3)


@pytest.mark.parametrize("line", ["sweep=lr,recipe", "sweep.confirm=1,2", "sweep=glob(*)"])
def test_the_search_itself_is_not_searched(line: str) -> None:
    with pytest.raises(ConfigError, match="the search space itself cannot be searched"):
        build_space({}, {}, [line], {}, [], options_of)


def test_all_options_of_a_group_are_run_in_every_combination() -> None:
    space = build_space({"k": "interval(0, 1)"}, {}, ["augment=glob(*)", "stage=head,full"], {}, [], options_of)
    assert space.listed
    assert len(space.combinations()) == 8
    assert space.combinations()[0] == {"augment": "light", "stage": "head"}
