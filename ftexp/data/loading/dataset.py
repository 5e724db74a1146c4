"""Transformed images of samples one by one, as worker processes make them."""

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
    """Gives for ``(epoch, index)`` one transformed image, uint8 [3, H, W], and its class number.

    Args:
        labels: int64 [N], class numbers of the samples.
        settings: of these, the seed and the number of views decide what is random in an image.
        source: of the images before anything random, if they are kept; None: each is decoded every time.
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
        """Whether no image has to be decoded any more."""
        return self._source is not None and self._source.pixels is not None

    def open_pixels(self) -> None:
        """Have the images decoded, if they are to be kept and are not there yet."""
        if self._source is not None:
            self._source.open()

    def close(self) -> None:
        """Let go of the decoded images."""
        if self._source is not None:
            self._source.close()

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        view = epoch if self._num_views is None else epoch % self._num_views
        if self._source is not None and self._source.pixels is not None:
            image = self._source.pixels.image(index)
        else:
            image = self._transform.prepare(open_image(self._samples[index]))
        # Transforms draw from torch's global generator: lend it a state of this view's own.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(_mix(self._seed, view, index))
        try:
            return self._transform.change(image), self._labels[index]
        finally:
            torch.set_rng_state(state)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
