"""The sweeper that Hydra uses for ``--multirun``. It is quick to import, because every ``--help`` loads it."""

from __future__ import annotations

from functools import partial
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ftexp.machine.interpreter import quick_imports


class SearchSweeper(Sweeper):
    """Hydra's sweeper for searches; it keeps what Hydra passes until the search begins."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context, task function and configuration."""
        self.config = config
        self._loader = hydra_context.config_loader
        self._launcher = partial(
            Plugins.instance().instantiate_launcher,
            hydra_context=hydra_context,
            task_function=task_function,
            config=config,
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search with the overrides of the command line."""
        with quick_imports():
            from ftexp.sweeps.frozen_config import freeze_config
            from ftexp.sweeps.sweep import sweep  # imports Optuna and more, which takes seconds

        assert self.config is not None
        freeze_config(self._loader)
        sweep(self.config, self._settings, arguments, self._loader.get_group_options, self._launcher)


def register_sweeper() -> None:
    """Register the sweeper with Hydra, whether this package is installed or not; call this once."""
    Plugins.instance().register(SearchSweeper)
