"""A batch whose pixels are NaN, in real phases: the message names it, and the epoch is repeated at half the rates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Compose
from tiny_runs import CPU, NAMES, colours, fit, fresh_network

from ftexp.config import SchedulerConfig
from ftexp.data.splitting.splits import Splits
from ftexp.data.splitting.test_split import TestSplit
from ftexp.errors import DivergedError
from ftexp.finetune.optimizers import build_optimizer
from ftexp.finetune.phases import plan_phases
from ftexp.finetune.schedules import Schedule, Span
from ftexp.training.ema import build_ema
from ftexp.training.inputs.worker_batches import WorkerBatches
from ftexp.training.phase_state import open_phase
from ftexp.training.recovery import Recovery

pytestmark = pytest.mark.usefixtures("no_pictures")

SETTINGS = (*CPU, "stage=full", "stage.epochs=3", "train.batch_size=8", "train.ema=0.9", "optimizer.head_lr=1e-2")


@pytest.fixture
def splits() -> Splits:
    return Splits(colours(44, seed=1), colours(21, seed=2), TestSplit(colours(10, seed=3)), ("b", "g", "r", "x"))


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``plant(n)``: the second batch of training epoch 2 has NaN pixels the first n times it is read."""

    def planted(times: int) -> None:
        original, left = WorkerBatches.epoch, [times]

        def epoch(self: WorkerBatches, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            for number, (images, labels) in enumerate(original(self, epoch)):
                bad = epoch == 2 and number == 1 and left[0] > 0
                left[0] -= bad
                yield (images * float("nan") if bad else images), labels

        monkeypatch.setattr(WorkerBatches, "epoch", epoch)

    return planted


def test_it_names_the_samples_and_goes_on_at_half_the_rates(
    configure: Compose, splits: Splits, tmp_path: Path, plant: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    plant(1)
    with caplog.at_level(logging.WARNING, logger="ftexp"):
        result = fit(configure(*SETTINGS, "scheduler=constant"), splits, tmp_path)
    (warning,) = [message for message in caplog.messages if message.startswith("nan ")]
    assert "Epoch 2: the training loss or its gradient is not finite" in warning
    assert "batch 2 of 6: colours/1-0" in warning
    assert warning.count("colours/1-") == 8
    assert "retries left: 1" in warning
    assert [record.epoch for record in result.history] == [1, 2, 3]
    assert [record.lr_head for record in result.history] == pytest.approx([1e-2, 0.5e-2, 0.5e-2])
    assert all(torch.isfinite(tensor).all() for tensor in result.network.module.state_dict().values())


def test_an_epoch_begun_again_is_the_epoch_at_half_the_rates(
    configure: Compose, splits: Splits, tmp_path: Path, plant: Callable[[int], None]
) -> None:
    """With plain SGD nothing else is remembered: the second epoch equals one that had half the rate from the start."""
    sgd = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "scheduler=constant", "train.ema=null")
    plant(1)
    (tmp_path / "a").mkdir()
    recovered = fit(configure(*SETTINGS, *sgd, "stage.epochs=2"), splits, tmp_path / "a")
    plant(0)
    (tmp_path / "b").mkdir()
    smooth = fit(configure(*SETTINGS, *sgd, "stage.epochs=2"), splits, tmp_path / "b")
    assert recovered.history[0].train_loss == smooth.history[0].train_loss
    assert recovered.history[0].val_loss == smooth.history[0].val_loss
    assert recovered.history[1].train_loss != smooth.history[1].train_loss


def test_when_it_comes_back_every_time_the_phase_fails(
    configure: Compose, splits: Splits, tmp_path: Path, plant: Callable[[int], None]
) -> None:
    plant(99)
    with pytest.raises(DivergedError, match=r"Epoch 2: the training loss .* is not finite .* batch 2 of 6: colours/1-"):
        fit(configure(*SETTINGS, "train.nan_retries=2"), splits, tmp_path)


def test_without_retries_the_first_one_ends_it(
    configure: Compose, splits: Splits, tmp_path: Path, plant: Callable[[int], None]
) -> None:
    plant(1)
    with pytest.raises(DivergedError, match="is not finite"):
        fit(configure(*SETTINGS, "train.nan_retries=0"), splits, tmp_path)


def test_after_a_recovery_adan_steps_as_a_new_optimizer(configure: Compose) -> None:
    """It counts its steps in the parameter groups, and corrects its averages by them."""
    network = fresh_network()
    config = configure(*SETTINGS, "optimizer=adan", "optimizer.weight_decay=0")
    (phase,) = plan_phases(config, NAMES, network)
    weight, updates = network.module.fc.weight, []
    with open_phase(network, phase, config.train) as groups:
        optimizer = build_optimizer(phase.optimizer, groups, torch.device("cpu"))
        schedule = Schedule(SchedulerConfig(name="constant", floor=1.0), optimizer, Span(1, 10, 40))
        recovery = Recovery(network, optimizer, schedule, build_ema(network, phase, None), 1)
        for again in (False, True):
            for _ in range(3):
                before = weight.detach().clone()
                weight.grad = torch.ones_like(weight)
                optimizer.step()
                updates.append(before - weight.detach())
            if not again:
                recovery.recover(DivergedError("NaN."))
    for first, second in zip(updates[:3], updates[3:], strict=True):
        torch.testing.assert_close(second, first / 2)
