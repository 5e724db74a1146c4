"""A batch that was chosen to fit, and does not, is trained on in parts; one that the user set ends in an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import Compose
from torch import Tensor, nn

from ftexp.machine.distributed import Ranks
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.training.loop import train_epoch
from ftexp.training.losses import CrossEntropy
from ftexp.training.parts import backward_in_parts
from ftexp.training.progress import Progress
from ftexp.training.step import Step
from ftexp.training.whole_batches import WholeBatches

IMAGES, LABELS = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


@pytest.fixture
def runtime(configure: Compose) -> Runtime:
    runtime = prepare_runtime(configure("runtime.device=cpu").runtime)
    runtime.memory.promise_step(1e6)  # as train.batch_size=auto does
    return runtime


class Limited(nn.Module):
    """A layer whose memory runs out, in the backward pass, with more images than ``most``."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1, 1, 18).view(3, 6))
            self.layer.bias.zero_()
        self.most = most
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        logits: Tensor = self.layer(images)
        if len(images) > self.most and logits.requires_grad:
            logits.register_hook(self._fail)
        return logits

    def _fail(self, gradient: Tensor) -> Tensor:
        self.layer.weight.grad = torch.ones_like(self.layer.weight)  # what was computed before memory ran out
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def step_of(net: Limited, runtime: Runtime) -> Step:
    return Step(net, torch.optim.SGD(net.parameters(), lr=0.5), CrossEntropy(0.0), runtime)


@pytest.mark.parametrize(("most", "sizes"), [(5, [10, 5, 5]), (3, [10, 5, 3, 3, 2, 2]), (10, [10])])
def test_the_update_is_that_of_the_whole_batch(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, most: int, sizes: list[int]
) -> None:
    updated = []
    for net in (Limited(100), limited := Limited(most)):
        step = step_of(net, runtime)
        loss = backward_in_parts(step, IMAGES, LABELS, None, completes=True)
        norm = step.update()
        updated.append([net.layer.weight, net.layer.bias, loss.total, loss.mean, norm])
    for expected, got in zip(*updated, strict=True):
        torch.testing.assert_close(got, expected)
    assert limited.sizes == sizes
    halvings = [message for message in caplog.messages if message.startswith("memory")]
    assert len(halvings) == {5: 1, 3: 2, 10: 0}[most]
    if halvings:
        assert "a training step of 10 images does not fit any more (CUDA out of memory. Tried" in halvings[0]


@pytest.mark.parametrize(("most", "sizes"), [(5, [10, 5, 5, 5, 10]), (3, [10, 5, 3, 3, 3, 3, 3, 10])])
def test_parts_are_not_padded_to_the_whole_batch(runtime: Runtime, most: int, sizes: list[int]) -> None:
    """As on CUDA, where parts of equal size are computed, and a smaller last batch has the size of a part."""
    gradients = []
    for net in (Limited(100), limited := Limited(most)):
        whole = WholeBatches(net, None, 10)
        step = Step(whole, torch.optim.SGD(net.parameters(), lr=0.5), CrossEntropy(0.0), runtime)
        backward_in_parts(step, IMAGES, LABELS, None, completes=True)
        step.update()
        backward_in_parts(step, IMAGES[:3], LABELS[:3], None, completes=True)
        gradients.append(net.layer.weight.grad)
    with torch.no_grad():
        whole(IMAGES[:4])
    assert limited.sizes == sizes, "in scoring, no memory has run out"
    torch.testing.assert_close(*gradients)


def test_later_batches_of_an_epoch_are_computed_in_as_many_parts(runtime: Runtime) -> None:
    class Batches:
        num_batches = 3

        def num_images(self, batch: int) -> int:
            return (10, 10, 3)[batch]

        def epoch(self, epoch: int, start: int = 0) -> list[tuple[Tensor, Tensor]]:
            return [(IMAGES[:count], LABELS[:count]) for count in (10, 10, 3)]

    net = Limited(5)
    with Progress().epoch("", 3) as bar:
        stats = train_epoch(step_of(net, runtime), Batches(), 1, bar)  # type: ignore[arg-type]
    assert net.sizes == [10, 5, 5, 5, 5, 3], "three images have no parts of two"
    assert stats.loss > 0


def of_two_processes(runtime: Runtime) -> Runtime:
    return replace(runtime, ranks=Ranks(0, 2))


def without_auto(runtime: Runtime) -> Runtime:
    return Runtime(runtime.device, "fp32", False, torch.contiguous_format, 0)


@pytest.mark.parametrize("change", [of_two_processes, without_auto])
def test_elsewhere_the_error_is_raised(runtime: Runtime, change: Callable[[Runtime], Runtime]) -> None:
    net = Limited(5)
    with pytest.raises(torch.OutOfMemoryError):
        backward_in_parts(step_of(net, change(runtime)), IMAGES, LABELS, 10, completes=True)
    assert net.sizes == [10]


def test_gradients_of_a_batch_before_are_not_lost(runtime: Runtime) -> None:
    net = Limited(5)
    step = step_of(net, runtime)
    backward_in_parts(step, IMAGES[:4], LABELS[:4], None, completes=False)
    with pytest.raises(torch.OutOfMemoryError):
        backward_in_parts(step, IMAGES, LABELS, None, completes=True)


def test_parts_have_two_images_at_least_and_other_errors_are_raised(runtime: Runtime) -> None:
    net = Limited(1)
    with pytest.raises(torch.OutOfMemoryError):
        backward_in_parts(step_of(net, runtime), IMAGES, LABELS, None, completes=True)
    assert net.sizes == [10, 5, 3], "eight parts would be of one image"
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        backward_in_parts(step_of(Limited(100), runtime), IMAGES[:, :4], LABELS, None, completes=True)
