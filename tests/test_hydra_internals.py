"""Private names of Hydra, its Optuna sweeper and Optuna: one module uses them, and the pinned versions have them."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

import ftexp
from ftexp.hydra_internals import (
    distribution_of,
    enqueued_values,
    grid_choices,
    hydra_argument_parser,
    stale_trial_ids,
    trial_id,
    with_value,
)

SOURCES = Path(ftexp.__file__).parent
PACKAGES = ("hydra", "hydra_plugins", "optuna", "omegaconf")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def imported(node: ast.AST) -> list[str]:
    """The dotted names that a statement imports from the packages."""
    names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{name}" for name in names]
    return [name for name in names if name.partition(".")[0] in PACKAGES]


def private_names(source: str) -> Iterator[str]:
    """The private names of the packages that a module may use: all that are not its own, where it imports one."""
    nodes = list(ast.walk(ast.parse(source)))
    if not any(imported(node) for node in nodes):
        return
    for node in nodes:
        yield from (name for name in imported(node) if any(map(is_private, name.split("."))))
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.split(".")
            if parts[0] in PACKAGES and all(map(str.isidentifier, parts)) and any(map(is_private, parts)):
                yield node.value


def test_one_module_alone_uses_private_names_of_hydra_and_optuna() -> None:
    used = {
        path.relative_to(SOURCES).as_posix(): sorted(private_names(path.read_text(encoding="utf-8")))
        for path in SOURCES.rglob("*.py")
    }
    inside = used.pop("hydra_internals.py")
    assert {path: names for path, names in used.items() if names} == {}
    assert "hydra._internal.utils.get_args_parser" in inside, "the search finds what there is"
    assert {"_value", "_trial_id", "_study_id", "_get_stale_trial_ids", "_to_grid_sampler_choices"} <= set(inside)


@pytest.mark.parametrize(
    "source",
    [
        "import optuna._x",
        "from hydra import _internal",
        "from omegaconf._utils import get",
        "import optuna\nstudy._study_id",
        "import hydra\nreplace(o, _value=1)",
        "import hydra\nimport_module('hydra._internal.utils')",
    ],
)
def test_every_way_to_a_private_name_is_found(source: str) -> None:
    assert len(list(private_names(source))) == 1


def test_hydras_parser_tells_its_own_flags_from_settings() -> None:
    known, unknown = hydra_argument_parser().parse_known_intermixed_args(["a=1", "--multirun", "b=2", "--nosuch"])
    assert (known.overrides, known.multirun, unknown) == (["a=1", "b=2"], True, ["--nosuch"])


def test_overrides_become_distributions() -> None:
    texts = ["a=tag(log, interval(1e-4, 1e-1))", "b=range(2, 9, 2)", "c=choice(x, 2)", "d=1,2"]
    parsed = OverridesParser.create().parse_overrides(texts)
    assert [distribution_of(override) for override in parsed] == [
        FloatDistribution(1e-4, 1e-1, log=True),
        IntDistribution(2, 8, step=2),
        CategoricalDistribution(("x", 2)),
        CategoricalDistribution((1, 2)),
    ]
    assert [getattr(override.value(), "simple_form", None) for override in parsed] == [None, None, False, True]


def test_an_override_takes_another_value_and_keeps_its_key() -> None:
    (override,) = OverridesParser.create().parse_overrides(["a=1"])
    changed = with_value(override, 7)
    assert (changed.value(), changed.key_or_group, override.value()) == (7, "a", 1)


def test_a_range_becomes_a_grid_and_an_interval_does_not() -> None:
    assert list(grid_choices(IntDistribution(2, 8, step=2))) == [2, 4, 6, 8]
    with pytest.raises(ValueError, match="discrete"):
        grid_choices(FloatDistribution(0, 1))


def test_a_running_trial_can_be_taken_up_by_its_id_and_told_by_its_number() -> None:
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    again = Trial(study, trial_id(study.get_trials()[asked.number]))
    again.report(0.5, 1)
    study.tell(asked.number, state=TrialState.PRUNED)
    (ended,) = study.get_trials()
    assert (ended.state, ended.value, ended.params) == (TrialState.PRUNED, 0.5, asked.params)


def test_an_enqueued_trial_keeps_its_values_where_a_lost_one_is_looked_up() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25})
    for _ in range(2):
        study.ask()
    assert [enqueued_values(trial) for trial in study.get_trials()] == [{"x": 0.25}, {}]


@pytest.mark.filterwarnings("ignore::UserWarning")  # experimental, and meant for Optuna's own loop
def test_a_trial_without_a_sign_of_life_is_found_by_the_database(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=60, grace_period=1)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial_id(trial))
    assert stale_trial_ids(storage, study) == []
    time.sleep(2.5)
    assert stale_trial_ids(storage, study) == [trial_id(trial)]
