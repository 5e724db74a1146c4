"""The private names of Hydra, its Optuna sweeper and Optuna that ftexp uses, and no other module uses any.

A new version of these packages may change private names without notice, so the versions are pinned in
``pyproject.toml``, and ``tests/test_hydra_internals.py`` checks what each function relies on. Everything is imported
inside the functions, because ``--help`` and a misspelt setting end without Optuna.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser

    import optuna
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.override_parser.types import Override
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial


def hydra_argument_parser() -> ArgumentParser:
    """The parser of Hydra's own flags, such as ``--multirun``."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def caching_repository(loader: Any) -> CachingConfigRepository:
    """Make the loader that composes configurations read each file once.

    Args:
        loader: Hydra's ``ConfigLoader``; changed in place.

    Returns:
        The loader's new repository of configuration files.
    """
    from hydra._internal.config_repository import CachingConfigRepository

    repository = CachingConfigRepository(loader.repository)
    loader.repository = repository
    return repository


def with_value(override: Override, value: object) -> Override:
    """A copy of an override that sets another value."""
    return replace(override, _value=value)  # type: ignore[arg-type]


def distribution_of(override: Override) -> BaseDistribution:
    """The Optuna distribution of an override with a sweep, such as ``lr=interval(0, 1)``.

    Raises:
        ValueError: for a sweep that Optuna has no distribution for.
        HydraException: for a sweep that cannot be read.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    distribution: BaseDistribution = create_optuna_distribution_from_override(override)
    return distribution


def grid_choices(distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a distribution that a grid tries.

    Raises:
        ValueError: for an interval, which has infinitely many.
    """
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    choices: Sequence[Any] = OptunaSweeperImpl._to_grid_sampler_choices(distribution)
    return choices


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The id of a trial in the storage, unique over all of its studies; ``trial.number`` counts within a study."""
    return trial._trial_id


def stale_trial_ids(storage: RDBStorage, study: optuna.Study) -> list[int]:
    """The ids of a study's running trials whose last heartbeat is older than the storage's grace period."""
    return storage._get_stale_trial_ids(study._study_id)


def enqueued_values(trial: FrozenTrial) -> dict[str, Any]:
    """The values that a trial was enqueued with; none if it was not enqueued."""
    values: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return values
