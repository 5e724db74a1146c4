"""Updates from one batch or several, by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ftexp.config import RuntimeConfig
from ftexp.training.loop import Step, train_epoch
from ftexp.training.progress import Progress
from ftexp.training.runtime import Runtime, prepare_runtime

SETTINGS = {
    "device": "cpu",
    "precision": "fp32",
    "compile": False,
    "channels_last": False,
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


class MeanLogit(nn.Module):
    """The mean of the logits: its gradient by a weight is the mean of that weight's inputs."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.mean()


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
            nn.CrossEntropyLoss(label_smoothing=0.1),
            runtime,
            clip_norm=clip_norm,
        )
        for _ in range(3):
            for inputs, targets in zip(images.split(sizes), labels.split(sizes), strict=True):
                step.backward(inputs, targets)
            step.update()
        ends.append(layer.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)
