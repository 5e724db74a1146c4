"""Samples the batches of each epoch, and the part of every batch that belongs to each rank."""

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
    """How samples are divided into batches.

    Attributes:
        batch_size: the batch size over all ranks; a multiple of the number of ranks.
        seed: the seed of the order and of the random augmentation.
        shuffle: whether each epoch has a random order; otherwise it is the order of the samples.
        num_images: the number of images in an epoch, over all ranks; None: all samples.
        balanced: with ``shuffle``, whether an epoch has every class equally often, with the same number of images.
        num_views: the number of random views (augmented versions) of an image; epoch e uses view e modulo
            ``num_views``. None: every epoch has new views.
        keep_pixels: where decoded images are kept: ``disk``, ``device`` (also on the device, if they fit) or ``no``.
        ranks: the processes that train together, and the rank of this one.
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
    """The batches of each epoch, as indices of samples. They depend only on the arguments; no image is read.

    Args:
        samples: the samples of a split.
        class_to_idx: class name -> class number.
        settings: how the samples are divided into batches.

    Raises:
        DataError: when there are too few images for the number of ranks.
    """

    def __init__(self, samples: Sequence[Sample], class_to_idx: Mapping[str, int], settings: BatchSettings) -> None:
        size = settings.ranks.size
        if len(samples) < 2 * size and size > 1:
            raise DataError(f"{len(samples)} images are too few for {size} processes; start fewer processes.")
        self.samples = samples
        self.labels = torch.tensor([class_to_idx[sample.label] for sample in samples], dtype=torch.int64)
        self.settings = settings
        self._num_images = len(samples) if settings.num_images is None else settings.num_images

    @property
    def num_batches(self) -> int:
        """The number of batches in an epoch."""
        return -(-self._num_images // self.settings.batch_size)

    @property
    def num_samples(self) -> int:
        """The number of samples, which can be more or less than an epoch has."""
        return len(self.samples)

    @property
    def shows_each_once(self) -> bool:
        """Whether no sample occurs twice in an epoch."""
        return not self.settings.balanced

    def num_images(self, batch: int) -> int:
        """The number of images in a batch (counted from 0), over all ranks."""
        size = self.settings.batch_size
        return min(size, self._num_images - batch * size)

    def batches(self, epoch: int) -> list[list[int]]:
        """The indices of the samples in each batch of an epoch, over all ranks."""
        order, size = self._order(epoch), self.settings.batch_size
        return [order[start : start + size] for start in range(0, len(order), size)]

    def own_batches(self, epoch: int) -> list[list[int]]:
        """The part of each batch that belongs to this rank. If the last batch has few images, its part can be empty."""
        ranks = self.settings.ranks
        return [batch[ranks.rank :: ranks.size] for batch in self.batches(epoch)]

    def paths(self, epoch: int, batch: int) -> list[str]:
        """The paths of the samples in a batch (counted from 0) of an epoch, for messages."""
        return [self.samples[index].path for index in self.batches(epoch)[batch]]

    def _order(self, epoch: int) -> list[int]:
        if not self.settings.shuffle:
            return list(range(self._num_images))
        rng = np.random.default_rng((self.settings.seed, epoch))
        drawn = _equally_often(self.labels.numpy(), rng) if self.settings.balanced else len(self.samples)
        order: list[int] = rng.permutation(drawn)[: self._num_images].tolist()
        return order


def _equally_often(classes: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw as many indices as there are samples, with the same number (up to one) from every class.

    Large classes give different samples in each epoch; small classes give each of their samples several times.
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
