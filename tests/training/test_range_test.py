from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Compose
from tiny_runs import NAMES, SMALL, colours, fit, fresh_network
from torch import nn

from ftexp.config import Config, TrainConfig
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import DivergedError
from ftexp.finetune.phases import Phase, plan_phases
from ftexp.machine.runtime import prepare_runtime
from ftexp.models.blocks import Network
from ftexp.preparation.head_solver import choose_solver
from ftexp.report.range_plot import report_ranges
from ftexp.training import phase_state, range_test
from ftexp.training.losses import LossSum
from ftexp.training.range_test import HIGHEST, LOWEST, RangeTest, find_ranges, losses_of_updates, sweep_rates
from ftexp.training.step import Step

SPLITS = Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


def ranges(config: Config, network: Network | None = None, splits: Splits = SPLITS) -> tuple[RangeTest, ...]:
    runtime, network = prepare_runtime(config.runtime), network or fresh_network()
    runtime.place(network.module)
    return find_ranges(config, network, splits, plan_phases(config, NAMES, network), runtime)


@dataclass
class Seen:
    """What a test of one rate was given: the ratio and the decay of each block, and the loss of its first update."""

    key: str
    ratios: dict[str, float]
    decays: dict[str, float]
    rates: dict[str, float]
    loss: float


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """One entry per rate that is tested; each test makes one update and suggests 0.1."""
    found: list[Seen] = []

    def one_update(key: str, updates: Iterator[float], optimizer: Any, ratios: list[float]) -> RangeTest:
        groups = optimizer.param_groups
        by_block = {str(group["block"]): ratio for group, ratio in zip(groups, ratios, strict=True)}
        decays = {str(group["block"]): group["weight_decay"] for group in reversed(groups)}
        rates = {str(group["block"]): group["lr"] for group in groups}
        found.append(Seen(key, by_block, decays, rates, next(updates)))
        return RangeTest(key, (0.01, 0.1, 1.0), (2.0, 1.0, 1.0))

    monkeypatch.setattr(range_test, "sweep_rates", one_update)
    monkeypatch.setattr(range_test, "NUM_STEPS", 2)
    return found


def test_the_setting_is_tested_and_not_what_a_phase_makes_of_it(configure: Compose, seen: list[Seen]) -> None:
    """staged: the head begins in a phase of factor 1, and the backbone learns most in one of factor 0.2."""
    tests = ranges(configure(*SMALL, "stage=staged", "optimizer.block_decay=0.5"))
    assert [(one.key, one.ratios) for one in seen] == [
        ("optimizer.head_lr", {"head": 1.0}),
        ("optimizer.backbone_lr", {"stem": pytest.approx(0.1), "body": pytest.approx(0.2), "head": 0.0}),
    ]
    assert [test.phase for test in tests] == [None, None]


def test_the_factor_of_a_single_phase_counts_for_the_head_too(
    configure: Compose, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = "stage.phases=[{name: all, learn: all, epochs: 1, lr_factor: 0.25}]"
    updates = range_test.losses_of_updates
    rates: list[list[float]] = []

    def followed(step: Step, batches: Any, accumulate: int) -> Iterator[float]:
        for loss in updates(step, batches, accumulate):
            rates.append([group["lr"] for group in step._optimizer.param_groups])
            yield loss

    monkeypatch.setattr(range_test, "losses_of_updates", followed)
    ranges(configure(*SMALL, "stage=full", phases))
    assert [one.ratios["head"] for one in seen] == [0.25, 0.0]
    assert seen[1].ratios["body"] == pytest.approx(0.25)
    assert rates[1:4] == [[pytest.approx(0.1 * 0.25)] * 2] * 3, "the head is trained at what the phase makes of 0.1"


def test_the_loss_of_an_update_is_the_sum_of_its_parts_over_their_weights() -> None:
    """Two parts of 30 and 10 weighted samples: 60 / 40, not the mean of 1 and 3."""
    sums = iter([LossSum(torch.tensor(30.0), torch.tensor(30.0)), LossSum(torch.tensor(30.0), torch.tensor(10.0))])
    step = SimpleNamespace(backward=lambda *_, **__: next(sums), update=lambda: None)
    batches = SimpleNamespace(num_batches=2, num_images=lambda _: 4, epoch=lambda _: [(None, None)] * 2)
    assert next(losses_of_updates(step, batches, accumulate=2)) == 1.5


def test_l2_sp_replaces_the_backbones_weight_decay_as_in_a_run(
    configure: Compose, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    penalties: list[tuple[dict[str, torch.Tensor], float | None]] = []
    original = phase_state.L2SPPenalty

    def recorded(network: Network, start: dict[str, torch.Tensor], strength: float | None) -> Any:
        penalties.append((start, strength))
        return original(network, start, strength)

    monkeypatch.setattr(phase_state, "L2SPPenalty", recorded)
    network = fresh_network()
    stem = network.module.stem[0].weight.clone()
    ranges(configure(*SMALL, "stage=full", "train.l2_sp=0.3", "optimizer.weight_decay=0.1"), network)
    assert [one.decays for one in seen] == [{"head": 0.1}, {"stem": 0.0, "body": 0.0, "head": 0.1}]
    assert [strength for _, strength in penalties] == [0.3] * 3
    assert all(torch.equal(start["stem.0.weight"], stem) for start, _ in penalties)


def test_without_the_pull_the_backbone_decays(configure: Compose, seen: list[Seen]) -> None:
    ranges(configure(*SMALL, "stage=full", "optimizer.weight_decay=0.1"))
    assert seen[1].decays == {"stem": 0.1, "body": 0.1, "head": 0.1}


def test_an_update_has_as_many_batches_as_in_a_run(configure: Compose) -> None:
    """Two batches of 4 are one of 8: the same images, so the same losses at the same rates."""
    whole, parts = (
        ranges(configure(*SMALL, "stage=head", f"train.batch_size={size}", f"train.accumulate={8 // size}"))[0]
        for size in (8, 4)
    )
    assert parts.losses[:60] == pytest.approx(whole.losses[:60], rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        ("loss.class_weights=balanced",),
        ("loss=bce",),
        ("loss=focal", "loss.gamma=2"),
        ("augment.mixup=0.2",),
        ("augment.erasing=0.9", "augment.horizontal_flip=0.5"),
        ("bn_policy=train",),
        ("data.sampler=balanced",),
    ],
)
@pytest.mark.usefixtures("no_pictures")
def test_the_first_loss_is_that_of_the_run(
    configure: Compose, seen: list[Seen], tmp_path: Path, settings: tuple[str, ...]
) -> None:
    """One epoch of one batch, so that the run reports the loss of its first step."""
    config = configure(*SMALL, "stage=head", *settings, "stage.epochs=1", "train.batch_size=64")
    few_red = [sample for sample in colours(44, seed=1) if sample.label != "r"] + colours(5, seed=4)
    splits = replace(SPLITS, train=few_red)
    ranges(config, splits=splits)
    assert seen[0].loss == pytest.approx(fit(config, splits, tmp_path).history[0].train_loss, rel=1e-6)


def test_blocks_with_rates_of_their_own_rest(configure: Compose, seen: list[Seen]) -> None:
    ranges(configure(*SMALL, "stage=full", "optimizer.block_lrs={stem: 1e-5, head: 1e-2}"))
    assert [one.key for one in seen] == ["optimizer.block_lrs.head", "optimizer.backbone_lr"]
    assert seen[1].ratios == {"stem": 0.0, "body": 1.0, "head": 0.0}


def test_adapters_are_tested_as_the_backbone_and_the_head_without_them(
    configure: Compose, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, adapted, open_phase = fresh_network(), [], range_test.open_phase

    def opened(network: Network, phase: Phase, settings: TrainConfig) -> Any:
        adapted.append(phase.change is not None)
        return open_phase(network, phase, settings)

    monkeypatch.setattr(range_test, "open_phase", opened)
    names = list(network.module.state_dict())
    ranges(configure(*SMALL, "stage=lora", "stage.rank=1"), network)
    assert [(test.key, sorted(test.decays)) for test in seen] == [
        ("optimizer.head_lr", ["head"]),
        ("optimizer.backbone_lr", ["body", "head", "stem"]),
    ]
    assert adapted == [False, False, True]
    assert list(network.module.state_dict()) == names


def test_where_all_blocks_have_rates_of_their_own_the_backbones_is_not_tested(
    configure: Compose, seen: list[Seen]
) -> None:
    ranges(configure(*SMALL, "stage=partial", "optimizer.block_lrs={body: 1e-5}"))
    assert [one.key for one in seen] == ["optimizer.head_lr"]


def test_a_rate_that_a_phase_sets_itself_is_not_offered_for_the_command_line(
    configure: Compose, seen: list[Seen], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    phases = "[{name: top, learn: head, epochs: 1}, {name: all, learn: all, epochs: 1, optimizer: {backbone_lr: 3e-4}}]"
    tests = ranges(configure(*SMALL, "stage=full", f"stage.phases={phases}"))
    assert [test.phase for test in tests] == [None, "all"]
    with caplog.at_level("INFO", logger="ftexp"):
        report_ranges(tests, tmp_path)
    assert "lr_find optimizer.backbone_lr of phase all in stage.phases: 1.0e-01" in caplog.messages
    assert caplog.messages[-1].startswith("lr_find optimizer.head_lr=1.0e-01  ")


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

    def num_images(self, batch: int) -> int:
        return 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter([(torch.full((1, 1), x), torch.zeros(1, dtype=torch.int64)) for x in (1.0, 2.0)])


def test_on_a_parabola_it_stops_past_the_rate_at_which_descent_diverges(configure: Compose) -> None:
    layer, resting = nn.Linear(1, 1, bias=False), nn.Parameter(torch.ones(1))
    nn.init.constant_(layer.weight, 3.0)
    optimizer = torch.optim.SGD([{"params": [layer.weight]}, {"params": [resting]}], lr=1.0)
    step = Step(layer, optimizer, Quadratic(), prepare_runtime(configure(*SMALL).runtime))
    test = sweep_rates("optimizer.head_lr", losses_of_updates(step, OneAndTwo(), 1), optimizer, [1.0, 0.0])
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
        DivergedError, match=r"loss is not finite \(nan\) although optimizer\.backbone_lr is still 1e-06"
    ):
        sweep_rates("optimizer.backbone_lr", losses_of_updates(step, OneAndTwo(), 1), optimizer, [1.0])


@pytest.mark.parametrize(
    ("stage", "keys"),
    [("head", ["optimizer.head_lr"]), ("partial", ["optimizer.head_lr", "optimizer.backbone_lr"])],
)
def test_it_tests_what_the_stage_trains_and_leaves_table_and_plot(
    configure: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, stage: str, keys: list[str]
) -> None:
    network = fresh_network()
    stem = network.module.stem[0].weight.clone()
    tests = ranges(configure(*SMALL, f"stage={stage}"), network)
    assert [test.key for test in tests] == keys
    assert 1e-4 < (tests[0].suggestion or 0) < 1
    assert torch.equal(network.module.stem[0].weight, stem)  # frozen
    with caplog.at_level("INFO", logger="ftexp"):
        report_ranges(tests, tmp_path)
    assert f"optimizer.head_lr={tests[0].suggestion:.1e}" in caplog.text
    assert (tmp_path / "lr_find.png").stat().st_size > 5000
    assert (tmp_path / "lr_find.csv").read_text().startswith("setting,rate,loss\noptimizer.head_lr,1e-06,")


def test_rates_are_tested_in_the_phases_after_a_solved_one(configure: Compose, seen: list[Seen]) -> None:
    """The head's in the next one, from the solved head; its factor is 0.5, and that of all blocks 0.2."""
    config, network = configure(*SMALL, "stage=staged", "head.solver=solved"), fresh_network()
    phases = choose_solver(config, plan_phases(config, NAMES, network), ())
    assert [phase.solved for phase in phases] == [True, False, False]
    find_ranges(config, network, SPLITS, phases, prepare_runtime(config.runtime))
    ranges(configure(*SMALL, "stage=staged"))
    solved, backbone, random, _ = seen
    assert (solved.key, solved.ratios) == ("optimizer.head_lr", {"head": 0.5})
    assert backbone.ratios["body"] == pytest.approx(0.2)
    assert solved.loss < random.loss / 2


def test_both_tests_start_from_a_solved_head(
    configure: Compose, seen: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the run does: the head is not trained before the test of the backbone."""
    opened: list[Phase] = []
    training = range_test._training

    def counted(*given: Any) -> Any:
        opened.append(given[-1])
        return training(*given)

    monkeypatch.setattr(range_test, "_training", counted)
    numbers = []
    for start in ("solved", "random"):
        opened.clear()
        ranges(configure(*SMALL, "stage=partial", f"head.init={start}"))
        numbers.append(len(opened))
    assert numbers == [2, 3]
    assert seen[0].loss < seen[2].loss / 2
