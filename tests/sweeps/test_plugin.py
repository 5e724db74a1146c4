"""How Hydra finds our sweeper."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra_plugins.hydra_optuna_sweeper import config as upstream

from ftexp.config.sweep import SearchSweeperConfig
from ftexp.sweeps.plugin import SearchSweeper, register_sweeper


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
