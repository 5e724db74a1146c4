from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Compose
from test_fit import NAMES, SMALL, colours, fresh_network
from torch import nn

from ftexp.data.sealed import SealedTest
from ftexp.data.splits import Splits
from ftexp.errors import DivergedError
from ftexp.finetune.phases import plan_phases
from ftexp.report.range_plot import report_ranges
from ftexp.training.loop import Step
from ftexp.training.losses import LossSum
from ftexp.training.range_test import HIGHEST, LOWEST, RangeTest, find_ranges, sweep_rates
from ftexp.training.runtime import prepare_runtime


def test_the_suggestion_is_where_half_of_the_fall_is_done() -> None:
    """From 2.0 to 1.0: the first rate from which on, up to the lowest, the loss is not above 1.5."""
    rates = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    assert RangeTest("optimizer.head_lr", rates, (2.0, 1.95, 1.7, 1.1, 1.0, 5.0)).suggestion == 1e-1
    assert RangeTest("optimizer.head_lr", rates, (2.0, 1.4, 1.7, 1.5, 1.0, 5.0)).suggestion == 1e-1


def test_without_room_to_fall_it_is_a_tenth_of_the_first_harmful_rate() -> None:
    rates = (1e-4, 1e-3, 1e-2, 1e-1)
    assert RangeTest("optimizer.backbone_lr", rates, (1.0, 0.96, 1.0, 1.02)).suggestion == pytest.approx(1e-2)
    assert RangeTest("optimizer.backbone_lr", rates, (1.0, 0.96, 1.0, 1.0)).suggestion is None


class Quadratic(nn.Module):
    """(w x - 1)^2: descent diverges at rates above 1 / x^2."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossSum:
        return LossSum(((logits - 1) ** 2).sum(), len(labels))


class OneAndTwo:
    """No weight suits both, so the gradient never vanishes."""

    num_batches, num_samples = 2, 2

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter([(torch.full((1, 1), x), torch.zeros(1, dtype=torch.int64)) for x in (1.0, 2.0)])


def test_on_a_parabola_it_stops_past_the_rate_at_which_descent_diverges(configure: Compose) -> None:
    layer, resting = nn.Linear(1, 1, bias=False), nn.Parameter(torch.ones(1))
    nn.init.constant_(layer.weight, 3.0)
    optimizer = torch.optim.SGD([{"params": [layer.weight]}, {"params": [resting]}], lr=1.0)
    step = Step(layer, optimizer, Quadratic(), prepare_runtime(configure(*SMALL).runtime))
    test = sweep_rates("optimizer.head_lr", step, optimizer, OneAndTwo(), [1.0, 0.0])
    assert test.rates[0] == LOWEST
    assert test.rates[1] / test.rates[0] == pytest.approx((HIGHEST / LOWEST) ** (1 / 119))
    assert 0.25 < test.rates[-1] < HIGHEST
    assert test.losses[0] == pytest.approx(14.5, abs=1.5)  # of 4 and 25 by turns
    assert test.suggestion is not None
    assert 1e-3 < test.suggestion < 1.0
    assert optimizer.param_groups[1]["lr"] == 0.0


def test_a_loss_that_is_not_finite_before_any_rate_was_raised_is_a_named_error(configure: Compose) -> None:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, float("nan"))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    step = Step(layer, optimizer, Quadratic(), prepare_runtime(configure(*SMALL).runtime))
    with pytest.raises(
        DivergedError, match=r"loss is not finite \(nan\) before optimizer\.backbone_lr was raised above 1e-06"
    ):
        sweep_rates("optimizer.backbone_lr", step, optimizer, OneAndTwo(), [1.0])


@pytest.mark.parametrize(
    ("stage", "keys"),
    [("head", ["optimizer.head_lr"]), ("partial", ["optimizer.head_lr", "optimizer.backbone_lr"])],
)
def test_it_tests_what_the_stage_trains_and_leaves_table_and_plot(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, stage: str, keys: list[str]
) -> None:
    config = configure(*SMALL, f"stage={stage}")
    splits = Splits(colours(44, seed=1), colours(21, seed=2), SealedTest(colours(10, seed=3)), ("b", "g", "r", "x"))
    runtime, network = prepare_runtime(config.runtime), fresh_network()
    runtime.place(network.module)
    stem = network.module.stem[0].weight.clone()
    tests = find_ranges(config, network, splits, plan_phases(config, NAMES)[0], runtime)
    assert [test.key for test in tests] == keys
    assert 1e-4 < (tests[0].suggestion or 0) < 1
    assert torch.equal(network.module.stem[0].weight, stem)  # frozen
    with caplog.at_level("INFO", logger="ftexp"):
        report_ranges(tests, tmp_path)
    assert f"optimizer.head_lr={tests[0].suggestion:.1e}" in caplog.text
    assert (tmp_path / "lr_find.png").stat().st_size > 5000
    assert (tmp_path / "lr_find.csv").read_text().startswith("setting,rate,loss\noptimizer.head_lr,1e-06,")
