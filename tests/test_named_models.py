"""Networks by name: options, timm's names, weights of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from ftexp.config import register_schema
from ftexp.config.conf_dir import conf_dir
from ftexp.errors import ConfigError
from ftexp.named_models import named_models


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir())):
        yield


def test_names_are_options_then_timms_and_weights_follow_an_at() -> None:
    given = ["resnet18", "timm/resnet18", "convnextv2_atto.fcmae", "resnet18@null", "resnet18@my (1).pth"]
    models = named_models(given, ["data=digits", "model.image_size=96", "model.weights=IMAGENET1K_V1"])
    assert [model.given for model in models] == given
    chosen = [model.config.model for model in models]
    assert [one.library for one in chosen] == ["torchvision", "timm", "timm", "torchvision", "torchvision"]
    assert [one.name for one in chosen] == ["resnet18", "resnet18", "convnextv2_atto.fcmae", "resnet18", "resnet18"]
    assert [one.weights for one in chosen] == [*["IMAGENET1K_V1"] * 3, None, "my (1).pth"]
    assert {one.image_size for one in chosen} == {96}


@pytest.mark.parametrize(
    ("given", "overrides", "message"),
    [
        (["resnet18", "resnt50"], [], "there is no network 'resnt50'. Did you mean 'resnet50'?"),
        (["resnet18", "convnextv2_ato"], [], "Did you mean 'convnextv2_atto'?"),
        (["resnet18", "resnet18"], [], "resnet18 is given twice"),
        (["resnet18"], [], r"models=\[resnet18\] is one network; python -m ftexp.cross_validate scores one"),
        ([], [], "The networks to compare are missing. Give two or more: 'models="),
        (["resnet18@", "resnet50"], [], "resnet18@ has no weights after the @"),
        (["resnet18", "resnet50"], ["model=vit_b_16"], "model=vit_b_16 chooses one network"),
    ],
)
def test_what_cannot_be_compared_is_refused(given: list[str], overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        named_models(given, overrides)
