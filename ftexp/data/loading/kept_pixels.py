"""Decoded images as they are kept: rows of bytes in a memory map, or on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from ftexp.data.loading.tensor_file import Kept
from ftexp.machine.transfer import batches_to_device


class Pixels:
    """The prepared images of some samples, as rows of bytes in a memory map, with the sizes of the images."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._bytes = kept.rows
        sizes, order = kept.notes["sizes"], kept.notes["order"]
        ends = sizes.prod(dim=1).mul(3).cumsum(0)
        self._row_of = order.argsort()  # sample -> row; the rows are in the order of decoding
        self._sizes, self._ends = sizes[self._row_of], ends[self._row_of]
        self._same_size = bool((sizes == sizes[0]).all())

    def image(self, index: int) -> Image.Image:
        """The prepared image of a sample."""
        return Image.fromarray(self.tensor(index).numpy())

    def tensor(self, index: int) -> Tensor:
        """The prepared image of a sample: uint8 [H, W, 3], on the device that the images are kept on."""
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        return self._bytes[end - height * width * 3 : end].view(height, width, 3)

    def batches(self, parts: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Yield batches of images, which must all have one size.

        Args:
            parts: the indices of the samples of each batch; all indices are copied to the device at once.

        Yields:
            uint8 [B, 3, H, W], channels last in memory, on the device that the images are kept on.
        """
        assert self._same_size, "images of several sizes cannot form a batch"
        height, width = self._sizes[0].tolist()
        rows = self._bytes.view(-1, height, width, 3)
        for indices in batches_to_device([self._row_of[list(part)].tolist() for part in parts], self.device):
            images = rows.index_select(0, indices)
            self.release()
            yield images.permute(0, 3, 1, 2)

    def release(self) -> None:
        """Release the memory of the pages that were read."""
        self._kept.release()

    @property
    def device(self) -> torch.device:
        """The device that the images are kept on."""
        return self._bytes.device

    @property
    def num_bytes(self) -> int:
        """The size of all images in bytes."""
        return self._bytes.nbytes

    def move(self, device: torch.device) -> None:
        """Keep the images on a device from now on."""
        self._bytes = self._bytes.to(device, copy=True)
        self.release()
