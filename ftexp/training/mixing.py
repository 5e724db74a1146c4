"""Mixup and CutMix: the images of a training batch in pairs, on the device, and their targets as shares of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torchvision.transforms import v2

from ftexp.config import AugmentConfig
from ftexp.training.inputs.batches import Batch, Batches

Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

# Keeps these draws apart from those of the samples' own views, which follow from (seed, epoch, index).
STREAM = 1


def mix(batches: Batches, augment: AugmentConfig, num_classes: int, seed: int) -> Batches:
    """The batches with the configured mixing; the batches themselves where there is none."""
    chosen: list[Mix] = []
    if augment.mixup > 0:
        chosen.append(v2.MixUp(alpha=augment.mixup, num_classes=num_classes))
    if augment.cutmix > 0:
        chosen.append(v2.CutMix(alpha=augment.cutmix, num_classes=num_classes))
    return MixedBatches(batches, chosen, seed) if chosen else batches


class MixedBatches:
    """Batches whose images are mixed with their neighbours in the batch.

    What is mixed how follows from (seed, epoch, number of the batch) alone.
    """

    def __init__(self, batches: Batches, choices: list[Mix], seed: int) -> None:
        self._batches = batches
        self._choices = choices
        self._seed = seed
        self.num_images = batches.num_images
        self.paths = batches.paths
        self.num_batches, self.num_samples = batches.num_batches, batches.num_samples
        self.close = batches.close

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Images as they came, mixed, and float32 targets [B, K] whose rows sum to 1."""
        for number, (images, labels) in enumerate(self._batches.epoch(epoch, start), start):
            with _own_draws(self._seed, epoch, number, STREAM):
                choice = self._choices[int(torch.randint(len(self._choices), ()))]
                mixed, targets = choice(images, labels)
            if images.is_contiguous(memory_format=torch.channels_last):
                mixed = mixed.contiguous(memory_format=torch.channels_last)
            yield mixed, targets


@contextmanager
def _own_draws(*numbers: int) -> Iterator[None]:
    """Lend torch's global CPU generator a state that follows from the numbers alone."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        torch.set_rng_state(state)
