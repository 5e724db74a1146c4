"""How long a network takes for an image, measured by scoring a few."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ftexp.machine.accelerator import wait_for
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import Batches, Forward
from ftexp.training.whole_batches import whole_batches

# At most so many batches are scored, and after two of them none that begins after so many seconds.
MEASURED_BATCHES, MEASURED_SECONDS = 3, 1.0


def seconds_per_image(
    module: nn.Module, batches: Batches, size: int, runtime: Runtime, clock: Callable[[], float]
) -> float:
    """Score batches, decoding included, and return the seconds for an image; all ranks have to call it.

    The first batch is slower, and counts only if it is the only one. A device that has to prepare for each size of a
    batch gets all of the same size, and few batches twice, of which the second time counts: the first batch takes up to
    18 s there, and a short one as long as a whole one.

    Args:
        module: the network, which is put into eval mode.
        batches: ``MEASURED_BATCHES`` of them, or fewer.
        size: images of this process in a whole batch.
        runtime: the device and the ranks.
        clock: function that returns seconds.
    """
    module.eval()
    forward = whole_batches(module, module, size, runtime)
    if KINDS[runtime.device.type].prepares_sizes and batches.num_batches < MEASURED_BATCHES:
        _score(forward, batches, runtime, clock)
        times, images = _score(forward, batches, runtime, clock)
        return (times[-1] - times[0]) / max(1, sum(images))
    times, images = _score(forward, batches, runtime, clock)
    first = 1 if len(times) > 2 else 0
    return (times[-1] - times[first]) / max(1, sum(images[first + 1 :]))


@torch.inference_mode()
def _score(
    forward: Forward, batches: Batches, runtime: Runtime, clock: Callable[[], float]
) -> tuple[list[float], list[int]]:
    """The time before the first batch and after each, and the images of each, of all processes."""
    times, images = [clock()], [0]
    for inputs, labels in batches.epoch(0):
        if len(labels):
            with runtime.autocast():
                forward(inputs)
        wait_for(runtime.device)
        times.append(clock())
        images.append(len(labels) * runtime.ranks.size)
        if len(times) > 2 and runtime.ranks.all_reduce_max(times[-1] - times[0] > MEASURED_SECONDS):
            break
    return times, images
