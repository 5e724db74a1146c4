"""The dataset of transformed images, from which worker processes load one image at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ftexp.data.augment.transforms import ImageTransform
from ftexp.data.loading.images import open_image
from ftexp.data.loading.pixel_store import PixelSource
from ftexp.data.loading.sampler import BatchSettings
from ftexp.data.samples import Sample


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Returns for ``(epoch, index)`` one transformed image, uint8 [3, H, W], and its class number.

    Args:
        samples: the samples, of length N.
        labels: the class numbers of the samples, int64 [N].
        transform: converts a decoded image to a tensor.
        settings: only the seed and the number of views are used; they decide the random augmentation of an image.
        source: the cached images before augmentation; None: each image is decoded every time.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Tensor,
        transform: ImageTransform,
        settings: BatchSettings,
        source: PixelSource | None = None,
    ) -> None:
        self._samples = samples
        self._labels = labels
        self._transform = transform
        self._seed = settings.seed
        self._num_views = settings.num_views
        self._source = source

    @property
    def is_decoded(self) -> bool:
        """Whether all images have been decoded already."""
        return self._source is not None and self._source.pixels is not None

    def open_pixels(self) -> None:
        """Decode the images, if they are to be cached and are not cached yet."""
        if self._source is not None:
            self._source.open()

    def close(self) -> None:
        """Release the decoded images."""
        if self._source is not None:
            self._source.close()

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        view = epoch if self._num_views is None else epoch % self._num_views
        if self._source is not None and self._source.pixels is not None:
            image = self._source.pixels.image(index)
        else:
            image = self._transform.prepare(open_image(self._samples[index]))
        # Transforms draw from the global generator of torch, which gets a state that belongs to this view.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(_mix(self._seed, view, index))
        try:
            return self._transform.change(image), self._labels[index]
        finally:
            torch.set_rng_state(state)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
