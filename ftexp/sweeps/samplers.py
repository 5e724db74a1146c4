"""Builds Optuna's samplers from the configuration of Hydra's Optuna sweeper."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from optuna import samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from ftexp.errors import ConfigError

# The last part of `_target_` in hydra/sweeper/sampler=OPTION -> the sampler. Nothing is imported by its path.
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
    """Build the configured sampler.

    Args:
        settings: the node ``hydra.sweeper.sampler``; null means Optuna's default for a setting.
        session: number of the process of the study, from 1; it changes a fixed seed, so that no session repeats the
            points of another.

    Raises:
        ConfigError: if there is no such sampler, or it does not accept its settings.
    """
    name = str(settings["_target_"]).rpartition(".")[2]
    if name not in SAMPLERS:
        raise ConfigError(
            f"hydra.sweeper.sampler._target_={settings['_target_']} is not a sampler; "
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
