from dataclasses import asdict

from hydra import compose, initialize_config_dir

from ftexp.config import as_data, parse, register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.tracking.params import flatten


def configuration(*overrides):
    register_schema()
    with initialize_config_dir(config_dir=str(conf_dir())):
        return parse(compose("config", overrides=list(overrides)))


def test_settings_under_their_full_keys():
    params = flatten(configuration("stage=partial", "stage.epochs=3", "optimizer.block_lrs.stage7=1e-5"))
    assert params["stage.phases.0.epochs"] == 3
    assert params["optimizer.block_lrs.stage7"] == 1e-5
    assert params["optimizer.betas"] == [0.9, 0.999]
    assert params["model.image_size"] is None


def test_a_password_stays_out_of_what_is_written():
    config = configuration("tracking.uri=http://me:hunter2@host:5000")
    assert "hunter2" not in str(flatten(config))
    expected = asdict(config) | {"tracking": asdict(config.tracking) | {"uri": "http://***@host:5000"}}
    del expected["sweep"], expected["resume"], expected["probe"], expected["recipe"]  # which are no settings of a run
    assert as_data(config) == expected
    assert config.tracking.uri == "http://me:hunter2@host:5000"
