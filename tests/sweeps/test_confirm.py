"""``sweep.confirm``: the best trials run again; refused settings, and the reported result."""

from __future__ import annotations

import pytest

from ftexp.config import SweepConfig
from ftexp.errors import ConfigError
from ftexp.sweeps.confirm import Confirmed, check_confirmable
from ftexp.sweeps.space import build_space

LUCKY = Confirmed(trial=4, searched=0.99, seeds=(1, 2), values=(0.7, 0.9))
BROKEN = Confirmed(trial=7, searched=0.98, seeds=(1, 2), values=(0.99,))


def test_mean_and_spread_are_those_of_the_fresh_seeds() -> None:
    assert LUCKY.mean == pytest.approx(0.8)
    assert LUCKY.spread == pytest.approx(0.1 * 2**0.5)  # the sample's
    assert LUCKY.complete
    assert (BROKEN.spread, BROKEN.complete) == (None, False)


def test_a_searched_seed_is_not_fresh() -> None:
    space = build_space({}, {}, ["runtime.seed=0,1"], {}, [], lambda _: [])
    with pytest.raises(ConfigError, match=r"sweep\.confirm=2 .* runtime\.seed is a range of this search"):
        check_confirmable(SweepConfig(objectives=["val_loss"], confirm=2), space)


def test_several_objectives_have_no_winner_to_confirm() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.confirm=2 needs a single objective"):
        SweepConfig(objectives=["val_loss", "seconds"], confirm=2)
