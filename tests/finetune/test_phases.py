from __future__ import annotations

import re

import pytest

from ftexp.config import AdamWConfig, PhaseConfig, StageConfig
from ftexp.errors import ConfigError
from ftexp.finetune.phases import check_block_rates, plan_phases

NAMES = ("stem", "layer1", "layer2", "layer10", "head")


def stage(**phase: object) -> StageConfig:
    return StageConfig(epochs=2, phases=[PhaseConfig(name="p", epochs=2, **phase)])


@pytest.mark.parametrize(
    ("phase", "learning"),
    [
        ({"learn": "head"}, ("head",)),
        ({"learn": "last", "last_blocks": 1}, ("layer10", "head")),
        ({"learn": "last", "last_blocks": 4}, ("stem", "layer1", "layer2", "layer10", "head")),
        ({"learn": "blocks", "blocks": ["layer1"]}, ("layer1", "head")),
        ({"learn": "blocks", "blocks": ["layer2", "stem"]}, ("stem", "layer2", "head")),
        ({"learn": "all"}, NAMES),
    ],
)
def test_learning_blocks_come_in_the_order_of_the_network(phase: dict[str, object], learning: tuple[str, ...]) -> None:
    (planned,) = plan_phases(stage(**phase), NAMES)
    assert planned.learning == learning
    assert planned.epochs == 2


def test_more_blocks_than_there_are_is_refused_with_the_largest_number() -> None:
    with pytest.raises(ConfigError, match=r"last_blocks=5 .* has 4 blocks .* Use at most 4, or stage=full"):
        plan_phases(stage(learn="last", last_blocks=5), NAMES)


def test_an_unknown_block_is_named_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=re.escape("no block layr1. Did you mean 'layer1'? Its blocks: stem, layer1,")
    ):
        plan_phases(stage(learn="blocks", blocks=["layr1"]), NAMES)


def test_rates_of_unknown_or_frozen_blocks_are_refused() -> None:
    phases = plan_phases(stage(learn="last", last_blocks=1), NAMES)
    rates = {"head_lr": 1.0, "backbone_lr": 1.0}
    check_block_rates(AdamWConfig(**rates, block_lrs={"layer10": 1.0}), phases, NAMES)
    with pytest.raises(ConfigError, match=r"optimizer\.block_lrs\.layer3: the network has no block layer3"):
        check_block_rates(AdamWConfig(**rates, block_lrs={"layer3": 1.0}), phases, NAMES)
    with pytest.raises(ConfigError, match=r"optimizer\.block_lrs\.stem has no effect: stem is frozen in every phase"):
        check_block_rates(AdamWConfig(**rates, block_lrs={"stem": 1.0}), phases, NAMES)
