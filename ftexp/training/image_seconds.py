"""How long a network takes for an image, measured by scoring a few."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ftexp.machine.accelerator import wait_for
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.batches import Batches

# At most so many batches are scored, and after two of them none that begins after so many seconds.
MEASURED_BATCHES, MEASURED_SECONDS = 3, 1.0


def seconds_per_image(module: nn.Module, batches: Batches, runtime: Runtime, clock: Callable[[], float]) -> float:
    """Score batches, decoding included, and return the seconds for an image; all ranks have to call it.

    The first batch is slower, and counts only if it is the only one.

    Args:
        module: the network, which is put into eval mode.
        batches: ``MEASURED_BATCHES`` of them, or fewer.
        runtime: the device and the ranks.
        clock: function that returns seconds.
    """
    times, images = [clock()], [0]
    module.eval()
    with torch.inference_mode(), runtime.autocast():
        for inputs, labels in batches.epoch(0):
            if len(labels):
                module(inputs)
            wait_for(runtime.device)
            times.append(clock())
            images.append(len(labels) * runtime.ranks.size)
            if len(times) > 2 and runtime.ranks.all_reduce_max(times[-1] - times[0] > MEASURED_SECONDS):
                break
    first = 1 if len(times) > 2 else 0
    return (times[-1] - times[first]) / max(1, sum(images[first + 1 :]))
