"""Which samples an epoch shows, in which order, cut into batches, and each rank's part of every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from ftexp.data.samples import Sample
from ftexp.errors import DataError
from ftexp.machine.distributed import ONE_PROCESS, Ranks


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Which batches of some samples are wanted.

    Attributes:
        batch_size: over all ranks, which it has to be a multiple of.
        seed: of the order, and of what is random in the images.
        shuffle: whether each epoch has an order of its own; else it is that of the samples.
        num_images: that an epoch shows, over all ranks; None: all of them.
        balanced: with ``shuffle``: whether an epoch of as many samples shows every class equally often.
        num_views: random views of an image, of which epoch e shows number e modulo ``num_views``; None: every epoch
            has its own.
        keep_pixels: where the decoded images of files are kept: on disk, on the device too if there is room, or not.
        ranks: which part of every batch is wanted.
    """

    batch_size: int
    seed: int
    shuffle: bool = False
    num_images: int | None = None
    balanced: bool = False
    num_views: int | None = None
    keep_pixels: Literal["no", "disk", "device"] = "no"
    ranks: Ranks = ONE_PROCESS


class EpochSampler:
    """The batches of each epoch, as indices of samples; follows from the settings alone, without reading an image.

    Raises:
        DataError: when there are too few images for the ranks.
    """

    def __init__(self, samples: Sequence[Sample], class_to_idx: Mapping[str, int], settings: BatchSettings) -> None:
        size = settings.ranks.size
        if len(samples) < 2 * size and size > 1:
            raise DataError(f"{len(samples)} images are too few for {size} processes; start fewer.")
        self.samples = samples
        self.labels = torch.tensor([class_to_idx[sample.label] for sample in samples], dtype=torch.int64)
        self.settings = settings
        self._num_images = len(samples) if settings.num_images is None else settings.num_images

    @property
    def num_batches(self) -> int:
        """In an epoch."""
        return -(-self._num_images // self.settings.batch_size)

    @property
    def num_samples(self) -> int:
        """How many there are, however many of them an epoch shows."""
        return len(self.samples)

    @property
    def shows_each_once(self) -> bool:
        """Whether no sample comes twice in an epoch."""
        return not self.settings.balanced

    def num_images(self, batch: int) -> int:
        """In a batch, from 0, over all ranks."""
        size = self.settings.batch_size
        return min(size, self._num_images - batch * size)

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of the samples in each batch of an epoch, over all ranks."""
        order, size = self._order(epoch), self.settings.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def own_batches(self, epoch: int) -> list[list[int]]:
        """This rank's part of each batch; that of the last one is empty where it has fewer images than ranks."""
        ranks = self.settings.ranks
        return [batch[ranks.rank :: ranks.size] for batch in self.batches(epoch)]

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The samples in a batch of an epoch, from 0, for messages."""
        return [self.samples[index].path for index in self.batches(epoch)[batch]]

    def _order(self, epoch: int) -> list[int]:
        if not self.settings.shuffle:
            return list(range(self._num_images))
        rng = np.random.default_rng((self.settings.seed, epoch))
        drawn = _equally_often(self.labels.numpy(), rng) if self.settings.balanced else len(self.samples)
        order: list[int] = rng.permutation(drawn)[: self._num_images].tolist()
        return order


def _equally_often(classes: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """As many indices as samples, the same number of every class, the rest of the division aside.

    A class that is large enough gives other samples in each epoch; a small one gives all of its samples several times.
    """
    present = rng.permutation(np.unique(classes))
    quota, extra = divmod(len(classes), len(present))
    drawn = []
    for position, number in enumerate(present):
        members = np.flatnonzero(classes == number)
        wanted = quota + (position < extra)
        rounds = -(-wanted // len(members))
        drawn.append(np.concatenate([rng.permutation(members) for _ in range(rounds)])[:wanted])
    return np.concatenate(drawn)
