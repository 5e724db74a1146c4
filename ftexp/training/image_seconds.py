"""How long a network takes for an image, measured by scoring a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ftexp.data.samples import Sample
from ftexp.machine.accelerator import wait_for
from ftexp.machine.device_kinds import KINDS
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import Batches, Forward

# At most so many batches are scored, and after two of them none that begins after so many seconds.
MEASURED_BATCHES, MEASURED_SECONDS = 3, 1.0


def measured_samples(samples: Sequence[Sample], size: int, device: torch.device) -> Sequence[Sample]:
    """The first samples, to measure with; where each size of a batch is prepared, they come again in whole batches.

    There the first batch takes up to 18 s, and a short one as long as a whole one.

    Args:
        samples: at least one.
        size: images in a batch of all ranks.
        device: the device of the network.
    """
    number = MEASURED_BATCHES * size
    if KINDS[device.type].prepares_sizes and len(samples) < number:
        return [samples[position % len(samples)] for position in range(number)]
    return samples[:number]


def seconds_per_image(module: nn.Module, batches: Batches, runtime: Runtime, clock: Callable[[], float]) -> float:
    """Score batches, decoding included, and return the seconds for an image; all ranks have to call it.

    The first batch is slower, and counts only if there are no more than two.

    Args:
        module: the network, which is put into eval mode.
        batches: of ``measured_samples``.
        runtime: the device and the ranks.
        clock: function that returns seconds.
    """
    module.eval()
    times, images = _score(module, batches, runtime, clock)
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
