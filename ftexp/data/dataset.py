"""The images of some samples, one by one for worker processes or as whole batches of what is kept decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ftexp.data.batch_augmentation import BatchAugmentation
from ftexp.data.images import open_image
from ftexp.data.pixel_store import PixelSource, UInt8Image
from ftexp.data.samples import Sample
from ftexp.data.sending import send_parts
from ftexp.data.transforms import ImageTransform


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Gives for ``(epoch, index)`` one transformed image, uint8 3 x height x width, and its class number.

    Arguments as ``loading.make_loader``'s.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        class_to_idx: Mapping[str, int],
        transform: ImageTransform,
        seed: int,
        views: int | None,
        source: PixelSource | None,
        batch_augmentation: BatchAugmentation | None,
    ) -> None:
        self.samples = samples
        self.labels = torch.tensor([class_to_idx[sample.label] for sample in samples], dtype=torch.int64)
        self._transform = transform
        self._seed = seed
        self._views = views
        self._source = source
        self._batch_augmentation = batch_augmentation

    def open_pixels(self) -> None:
        """Have the images decoded, if they are to be kept and are not there yet."""
        if self._source is not None and self._source.pixels is None:
            self._source.open()
            self._forget_source_without_pixels()

    @property
    def is_decoded(self) -> bool:
        """Whether no image has to be decoded any more."""
        return self._source is not None and self._source.pixels is not None

    @property
    def makes_batches(self) -> bool:
        """Whether whole batches are there to be taken."""
        return self.is_decoded and self._needs_no_single_image

    @property
    def can_show_while_decoding(self) -> bool:
        """Whether whole batches can be made as the images come."""
        return self._needs_no_single_image and self._source is not None and not self._source.is_kept

    @property
    def _needs_no_single_image(self) -> bool:
        return not self._transform.is_random or self._batch_augmentation is not None

    def first_pass(self, epoch: int, batches: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of an epoch as they are decoded, for later ones to come from what is kept."""
        assert self._source is not None
        for images, indices in zip(self._source.first_pass(batches), batches, strict=True):
            yield self._put_together(images, epoch, indices), self.labels[indices]
        self._forget_source_without_pixels()

    def batches(self, epoch: int, parts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels for each part, where ``makes_batches``; on the device that keeps or augments the images."""
        assert self._source is not None
        pixels = self._source.pixels
        assert pixels is not None
        device = pixels.device if self._batch_augmentation is None else self._batch_augmentation.device
        labels = send_parts([self.labels[part].tolist() for part in parts], device)
        if self._batch_augmentation is None:
            yield from zip(pixels.batches(parts), labels, strict=True)
            return
        for indices, of_part in zip(parts, labels, strict=True):
            images = [pixels.tensor(index) for index in indices]
            yield self._batch_augmentation(images, epoch, indices) if indices else self.no_images(epoch), of_part
            pixels.release()

    def no_images(self, epoch: int) -> Tensor:
        """A batch of none, of the shape that the others have."""
        image, _ = self[(epoch, 0)]
        return image.new_empty(0, *image.shape)

    def close(self) -> None:
        """Let go of the decoded images."""
        self._source = self._batch_augmentation = None

    def _forget_source_without_pixels(self) -> None:
        if self._source is not None and self._source.pixels is None:  # they did not fit
            self._source = None

    def _put_together(self, images: list[UInt8Image], epoch: int, indices: list[int]) -> Tensor:
        if self._batch_augmentation is None:
            return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return self._batch_augmentation([torch.from_numpy(image) for image in images], epoch, indices)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        number = epoch if self._views is None else epoch % self._views
        if self._source is not None and self._source.pixels is not None:
            image = self._source.pixels.image(index)
        else:
            image = self._transform.prepare(open_image(self.samples[index]))
        # Augmentations draw from torch's global generator: lend it a state of this image's own.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(_mix(self._seed, number, index))
        try:
            return self._transform.change(image), self.labels[index]
        finally:
            torch.set_rng_state(state)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
