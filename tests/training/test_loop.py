"""Updates from one batch or several, by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ftexp.config import RuntimeConfig
from ftexp.errors import DivergedError
from ftexp.machine.distributed import Ranks
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.training import loop
from ftexp.training.epoch_sums import EpochSums
from ftexp.training.loop import evaluate, train_epoch
from ftexp.training.losses import BinaryCrossEntropy, CrossEntropy, FocalLoss, LossSum
from ftexp.training.progress import Progress
from ftexp.training.step import Step

SETTINGS = {
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "channels_last": False,
    "fold_batchnorm": False,
    "cache": "off",
    "cache_gib": 1.0,
    "workers": 0,
    "seed": 0,
    "deterministic": False,
}


@pytest.fixture
def runtime() -> Runtime:
    return prepare_runtime(RuntimeConfig(**SETTINGS))


class GivenBatches:
    """The same batches in every epoch."""

    def __init__(self, *batches: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._batches = batches
        self.num_batches = len(batches)

    def num_images(self, batch: int) -> int:
        return len(self._batches[batch][0])

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self._batches)

    def paths(self, epoch: int, batch: int) -> list[str]:
        return [f"{batch}-{row}.png" for row in range(self.num_images(batch))]


class MeanLogit(nn.Module):
    """The mean of the logits: its gradient by a weight is the mean of that weight's inputs."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossSum:
        return LossSum(logits.sum(), len(labels))


def one_weight() -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def column(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1), torch.zeros(len(values), dtype=torch.int64)


def test_the_last_incomplete_group_is_the_mean_over_its_samples(runtime: Runtime) -> None:
    """Batches (1, 3), (5, 7) and (9, 11), (16): means over the samples 4 and 12, not over the batches."""
    layer, seen = one_weight(), []
    step = Step(
        layer,
        torch.optim.SGD(layer.parameters(), lr=1.0),
        MeanLogit(),
        runtime,
        after_update=[lambda: seen.append(layer.weight.item())],
    )
    batches = GivenBatches(column(1, 3), column(5, 7), column(9, 11), column(16))
    with Progress(enabled=False).epoch("", 4) as bar:
        stats = train_epoch(step, batches, 1, bar, accumulate=2)
    assert seen == [-4.0, -16.0]
    assert stats.grad_norm == 8.0  # the mean of the two updates' norms


def test_three_batches_with_a_group_of_two_give_two_updates(runtime: Runtime) -> None:
    layer, seen = one_weight(), []
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    step = Step(layer, optimizer, MeanLogit(), runtime, after_update=[lambda: seen.append(layer.weight.item())])
    with Progress(enabled=False).epoch("", 3) as bar:
        train_epoch(step, GivenBatches(column(1, 3), column(5, 7), column(2, 2)), 1, bar, accumulate=2)
    assert seen == [-4.0, -6.0]


def test_the_speed_of_an_epoch_counts_what_the_device_still_computes_at_its_end(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four images are sent in no time, and computed in 2 s, for which the sums wait."""
    seconds, layer = [0.0], one_weight()

    def waits(sums: EpochSums, ranks: Ranks) -> EpochSums:
        seconds[0] += 2.0
        return replace(sums)

    monkeypatch.setattr(EpochSums, "over", waits)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    step = Step(layer, torch.optim.SGD(layer.parameters(), lr=1.0), MeanLogit(), runtime)
    with Progress(enabled=False).epoch("", 2) as bar:
        stats = train_epoch(step, GivenBatches(column(1, 3), column(5, 7)), 1, bar)
    assert stats.images_per_second == 2.0


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_accumulated_batches_equal_the_big_one_up_to_rounding(runtime: Runtime, clip_norm: float | None) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(13, 6), torch.randint(0, 3, (13,))
    ends = []
    for sizes in ([13], [5, 5, 3]):
        torch.manual_seed(1)
        layer = nn.Linear(6, 3)
        step = Step(
            layer,
            torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9),
            CrossEntropy(0.1),
            runtime,
            clip_norm=clip_norm,
        )
        for _ in range(3):
            for inputs, targets in zip(images.split(sizes), labels.split(sizes), strict=True):
                step.backward(inputs, targets)
            step.update()
        ends.append(layer.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


WEIGHTS = torch.tensor([0.1, 1.0, 6.0], dtype=torch.float64)
LOSSES = {
    "class weights": CrossEntropy(0.1, WEIGHTS),
    "cross-entropy": CrossEntropy(0.1),
    "bce": BinaryCrossEntropy(0.1),
    "focal": FocalLoss(2.0),
}
each_loss = pytest.mark.parametrize("loss_fn", LOSSES.values(), ids=LOSSES)


def ten(*, shares: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten inputs [10, 6], and class numbers, of which the second is the rare one; or a mix of two each."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(10, 6, dtype=torch.float64), torch.tensor([0, 2, 0, 0, 1, 0, 1, 0, 0, 2])
    if shares:
        return inputs, 0.3 * nn.functional.one_hot(labels, 3) + 0.7 * nn.functional.one_hot(labels.roll(1), 3).double()
    return inputs, labels


def linear() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(6, 3).double()


def gradient_of_the_whole(loss_fn: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    layer = linear()
    torch.autograd.backward(loss_fn(layer(inputs), targets).mean)
    assert layer.weight.grad is not None
    return layer.weight.grad


@each_loss
@pytest.mark.parametrize("sizes", [[10], [4, 4, 2], [1] * 10], ids=str)
@pytest.mark.parametrize("shares", [False, True], ids=["class numbers", "shares"])
def test_the_parts_of_an_update_give_the_gradient_and_the_loss_of_one_batch(
    runtime: Runtime, loss_fn: nn.Module, sizes: list[int], shares: bool
) -> None:
    inputs, targets = ten(shares=shares)
    layer = linear()
    step = Step(layer, torch.optim.SGD(layer.parameters(), lr=0.0), loss_fn, runtime)
    batches = GivenBatches(*zip(inputs.split(sizes), targets.split(sizes), strict=True))
    with Progress(enabled=False).epoch("", 1) as bar:
        stats = train_epoch(step, batches, 1, bar, accumulate=len(sizes))
    expected = gradient_of_the_whole(loss_fn, inputs, targets)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-12, atol=0)
    assert stats.loss == pytest.approx(loss_fn(linear()(inputs), targets).mean.item(), rel=1e-12)


class Known(Ranks):
    """One of two ranks, which is told the sums over both in turn."""

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return SUMS.pop(0)


SUMS: list[torch.Tensor] = []


@each_loss
def test_the_ranks_mean_gradient_is_that_of_the_whole_batches(runtime: Runtime, loss_fn: nn.Module) -> None:
    """Two batches of 7 and 3 an update, of which the ranks have 4 + 3 and 3 + 0 images."""
    inputs, targets = ten()
    whole = [loss_fn(linear()(inputs[rows]), targets[rows]) for rows in (slice(0, 7), slice(7, 10))]
    gradients = []
    for rank, rows in enumerate(([slice(0, 4), slice(7, 10)], [slice(4, 7), slice(10, 10)])):
        SUMS[:] = [loss.weight for loss in whole if not isinstance(loss.weight, int)]
        layer = linear()
        alone = torch.optim.SGD(layer.parameters(), lr=0.0)
        step = Step(layer, alone, loss_fn, replace(runtime, ranks=Known(rank, 2)))
        for part, num_images in zip(rows, (7, 3), strict=True):
            step.backward(inputs[part], targets[part], num_images)
        step.update()
        gradients.append(layer.weight.grad)
        assert not SUMS, "one collective a batch where samples count differently, none where their number says all"
    expected = gradient_of_the_whole(loss_fn, inputs, targets)
    torch.testing.assert_close((gradients[0] + gradients[1]) / 2, expected, rtol=1e-12, atol=1e-15)


@each_loss
def test_scaled_gradients_are_unscaled_to_the_same(runtime: Runtime, loss_fn: nn.Module) -> None:
    inputs, targets = ten()
    layer = linear()
    step = Step(layer, torch.optim.SGD(layer.parameters(), lr=0.0), loss_fn, runtime)
    step.scaler = torch.amp.GradScaler("cpu")
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        step.backward(inputs[rows], targets[rows])
    step.update()
    expected = gradient_of_the_whole(loss_fn, inputs, targets)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-12, atol=0)


class Overflowing(nn.Module):
    """A finite loss whose gradients are finite in every update whose number is in ``good``."""

    def __init__(self, *good: int) -> None:
        super().__init__()
        self.good, self.number = good, 0

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> LossSum:
        self.number += 1
        total = logits.sum()
        if self.number not in self.good:
            total.register_hook(lambda gradient: gradient * float("inf"))
        return LossSum(total, len(labels))


def train_in_fp16(runtime: Runtime, loss_fn: nn.Module, updates: int) -> float:
    """The mean gradient norm."""
    layer = one_weight()
    step = Step(layer, torch.optim.SGD(layer.parameters(), lr=1.0), loss_fn, replace(runtime, precision="fp16"))
    with Progress(enabled=False).epoch("", updates) as bar:
        return train_epoch(step, GivenBatches(*[column(1, 3)] * updates), 4, bar).grad_norm


def test_skipped_updates_are_not_in_the_mean_norm(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    assert train_in_fp16(runtime, Overflowing(3), 4) == pytest.approx(2.0)
    assert not caplog.messages


def test_an_epoch_without_an_update_is_said(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    assert train_in_fp16(runtime, Overflowing(), 3) == 0
    (message,) = caplog.messages
    assert "Epoch 4: the gradients overflowed fp16 in all 3 updates" in message
    assert "the loss scale is down to 8192" in message
    assert "runtime.precision=bf16 or fp32" in message


def test_gradients_that_overflow_at_every_scale_are_an_error(runtime: Runtime) -> None:
    with pytest.raises(
        DivergedError, match=r"overflowed fp16 in all 17 updates.*down to 0\.5\. Set runtime\.precision"
    ):
        train_in_fp16(runtime, Overflowing(), 17)


def test_a_score_whose_loss_is_not_finite_is_an_error_that_names_the_images(runtime: Runtime) -> None:
    batches = GivenBatches(column(1, float("nan")), column(2, float("inf"), 3))
    with pytest.raises(
        DivergedError, match=r"The test loss is not finite \(nan\).* 2 of 5 images \(0-1\.png, 1-1\.png\)\."
    ):
        evaluate(lambda inputs: inputs.repeat(1, 2), batches, 2, runtime, "test")
