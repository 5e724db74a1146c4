"""The private names of Hydra's Optuna sweeper and of Optuna that the search leans on; both are pinned for it."""

from __future__ import annotations

import time
import tomllib
from importlib import import_module
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra_plugins.hydra_optuna_sweeper import config as upstream
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl, create_optuna_distribution_from_override
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from ftexp.config.sweep import SearchSweeperConfig
from ftexp.sweeps.plugin import SearchSweeper, register_sweeper


def test_overrides_become_distributions() -> None:
    texts = ["a=tag(log, interval(1e-4, 1e-1))", "b=range(2, 9, 2)", "c=choice(x, 2)", "d=1,2"]
    parsed = OverridesParser.create().parse_overrides(texts)
    assert [create_optuna_distribution_from_override(override) for override in parsed] == [
        FloatDistribution(1e-4, 1e-1, log=True),
        IntDistribution(2, 8, step=2),
        CategoricalDistribution(("x", 2)),
        CategoricalDistribution((1, 2)),
    ]
    assert [getattr(override.value(), "simple_form", None) for override in parsed] == [None, None, False, True]


def test_a_range_becomes_a_grid() -> None:
    assert list(OptunaSweeperImpl._to_grid_sampler_choices(IntDistribution(2, 8, step=2))) == [2, 4, 6, 8]


def test_a_running_trial_can_be_taken_up_by_its_id_and_told_by_its_number() -> None:
    study = optuna.create_study()
    asked = study.ask({"x": FloatDistribution(0, 1)})
    again = Trial(study, study.get_trials()[asked.number]._trial_id)
    again.report(0.5, 1)
    study.tell(asked.number, state=TrialState.PRUNED)
    (ended,) = study.get_trials()
    assert (ended.state, ended.value, ended.params) == (TrialState.PRUNED, 0.5, asked.params)


def test_an_enqueued_trial_keeps_its_values_where_a_lost_one_is_looked_up() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25})
    trial = study.ask()
    assert study.get_trials()[trial.number].system_attrs["fixed_params"] == {"x": 0.25}


@pytest.mark.filterwarnings("ignore::UserWarning")  # experimental, and meant for Optuna's own loop
def test_a_trial_without_a_sign_of_life_is_found_by_the_database(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=60, grace_period=1)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    assert storage._get_stale_trial_ids(study._study_id) == []
    time.sleep(2.5)
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]


def test_our_keys_are_those_of_the_upstream_sweeper_and_the_pruner() -> None:
    ours = set(SearchSweeperConfig.__dataclass_fields__) - {"pruner"}
    theirs = set(upstream.OptunaSweeperConf.__dataclass_fields__) - {"defaults"}
    assert theirs - ours == {"custom_search_space"}
    assert ours <= theirs


def test_the_entry_point_leads_to_the_sweeper_and_hydra_knows_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["hydra.plugins"]["ftexp"].partition(":")
    assert getattr(import_module(module), name) is SearchSweeper
    register_sweeper()
    assert Plugins.instance().class_name_to_class[SearchSweeperConfig._target_] is SearchSweeper
