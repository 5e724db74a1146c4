from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from optuna.samplers import CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from ftexp.config import register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError
from ftexp.sweeps.plugin import register_sweeper
from ftexp.sweeps.samplers import build_sampler


def settings(option: str, **changes: object) -> dict[str, object]:
    register_schema()
    register_sweeper()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        composed = compose("config", overrides=[f"hydra/sweeper/sampler={option}"], return_hydra_config=True)
    sampler = OmegaConf.to_container(composed.hydra.sweeper.sampler)
    assert isinstance(sampler, dict)
    return {**{str(key): value for key, value in sampler.items()}, **changes}


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("tpe", TPESampler),
        ("gp", GPSampler),
        ("random", RandomSampler),
        ("cmaes", CmaEsSampler),
        ("qmc", QMCSampler),
        ("nsgaii", NSGAIISampler),
    ],
)
def test_every_option_is_a_sampler_of_optunas(option: str, kind: type) -> None:
    assert type(build_sampler(settings(option), session=1)) is kind


def test_a_fixed_seed_differs_from_session_to_session() -> None:
    draws = [
        build_sampler(settings("random", seed=7), session)._rng.rng.uniform()  # type: ignore[attr-defined]
        for session in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_nothing_is_looked_up_by_its_path() -> None:
    with pytest.raises(ConfigError, match=r"_target_=os\.system is not a sampler; choose hydra/sweeper/sampler=tpe"):
        build_sampler({"_target_": "os.system", "command": "true"}, session=1)


def test_a_wrong_setting_is_one_message() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.sampler \(TPESampler\): .*speed"):
        build_sampler(settings("tpe", speed=3), session=1)
