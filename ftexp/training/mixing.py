"""Mixup and CutMix on the device: images of a training batch are mixed in pairs, and so are their targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torchvision.transforms import v2

from ftexp.config import AugmentConfig
from ftexp.training.inputs.batches import Batch, Batches

Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

# Separates these random numbers from those of the augmentation of single samples, which use (seed, epoch, index).
STREAM = 1


def mix(batches: Batches, augment: AugmentConfig, num_classes: int, seed: int) -> Batches:
    """The batches with the configured mixing; unchanged if there is none.

    Args:
        batches: the training batches.
        augment: the settings, with ``mixup`` and ``cutmix``.
        num_classes: number of classes.
        seed: the seed of the run.
    """
    chosen: list[Mix] = []
    if augment.mixup > 0:
        chosen.append(v2.MixUp(alpha=augment.mixup, num_classes=num_classes))
    if augment.cutmix > 0:
        chosen.append(v2.CutMix(alpha=augment.cutmix, num_classes=num_classes))
    return MixedBatches(batches, chosen, seed) if chosen else batches


class MixedBatches:
    """Batches whose images are mixed with their neighbours in the batch.

    The mixing depends only on seed, epoch, and the number of the batch.
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
        """Mixed images [B, 3, H, W] on their device, and float32 targets [B, C] whose rows sum to 1."""
        for number, (images, labels) in enumerate(self._batches.epoch(epoch, start), start):
            with _own_draws(self._seed, epoch, number, STREAM):
                choice = self._choices[int(torch.randint(len(self._choices), ()))]
                mixed, targets = choice(images, labels)
            if images.is_contiguous(memory_format=torch.channels_last):
                mixed = mixed.contiguous(memory_format=torch.channels_last)
            yield mixed, targets


@contextmanager
def _own_draws(*numbers: int) -> Iterator[None]:
    """Seed torch's global CPU generator with the numbers within the ``with``, then restore its state."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        torch.set_rng_state(state)
