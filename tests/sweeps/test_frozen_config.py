from __future__ import annotations

from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from yaml import YAMLError

from ftexp.sweeps.frozen_config import freeze_config


@pytest.fixture
def loader(tmp_path: Path) -> ConfigLoaderImpl:
    """Over a folder of two options of one group, one of which is no YAML."""
    group = tmp_path / "stage" / "more"
    group.mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("defaults: [_self_, {stage/more: short}]\n")
    (group / "short.yaml").write_text("epochs: 3\n")
    (group / "broken.yaml").write_text("epochs: [3\n")
    Plugins.instance()  # knows how to read a folder
    return ConfigLoaderImpl(create_config_search_path(str(tmp_path)))


def epochs(loader: ConfigLoaderImpl, *overrides: str) -> int:
    config = loader.load_configuration("config", list(overrides), RunMode.RUN)
    return int(config.stage.more.epochs)


def test_an_edit_after_the_start_of_a_sweep_changes_nothing(tmp_path: Path, loader: ConfigLoaderImpl) -> None:
    (tmp_path / "stage" / "more" / "short.yaml").write_text("epochs: 5\n")
    assert epochs(loader) == 5, "as Hydra is: read when it is composed"
    freeze_config(loader)
    (tmp_path / "stage" / "more" / "short.yaml").write_text("epochs: 7\n")
    assert epochs(loader) == 5
    assert epochs(loader, "stage.more.epochs=9") == 9


def test_a_file_with_mistakes_is_refused_where_it_is_used(loader: ConfigLoaderImpl) -> None:
    freeze_config(loader)
    assert epochs(loader) == 3
    with pytest.raises((HydraException, YAMLError), match=r"broken\.yaml"):
        epochs(loader, "stage/more=broken")
