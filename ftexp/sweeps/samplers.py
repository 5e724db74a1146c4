"""Optuna's samplers by the names that Hydra's own sweeper configures them with."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from ftexp.errors import ConfigError

# The last part of the `_target_` in hydra/sweeper/sampler=OPTION -> what it stands for. Nothing is looked up by path.
SAMPLERS: dict[str, Callable[..., BaseSampler]] = {
    "TPESampler": samplers.TPESampler,
    "GPSampler": samplers.GPSampler,
    "RandomSampler": samplers.RandomSampler,
    "CmaEsSampler": samplers.CmaEsSampler,
    "QMCSampler": samplers.QMCSampler,
    "create_nsgaii_sampler": samplers.NSGAIISampler,
    "create_nsgaiii_sampler": samplers.NSGAIIISampler,
}


def build_sampler(settings: Mapping[str, Any], session: int) -> BaseSampler:
    """The configured sampler.

    Args:
        settings: the node ``hydra.sweeper.sampler``; null leaves a setting to Optuna.
        session: from 1. A fixed seed differs from session to session, or each would try the same points again.

    Raises:
        ConfigError: for a sampler that there is not, or one that does not take its settings.
    """
    name = str(settings["_target_"]).rpartition(".")[2]
    if name not in SAMPLERS:
        raise ConfigError(
            f"hydra.sweeper.sampler._target_={settings['_target_']} is no sampler; "
            "choose hydra/sweeper/sampler=tpe, gp, random, cmaes, qmc, grid or nsgaii."
        )
    arguments = {key: value for key, value in settings.items() if not key.startswith("_") and value is not None}
    if "seed" in arguments:
        arguments["seed"] += session - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return SAMPLERS[name](**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"hydra.sweeper.sampler ({name}): {error}.") from error
