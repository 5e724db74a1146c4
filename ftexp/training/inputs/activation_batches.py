"""Batches of cached activations: the output of the frozen blocks, computed once and used instead of the images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import torch

from ftexp.data.loading.sampler import EpochSampler
from ftexp.data.loading.tensor_file import Kept
from ftexp.data.loading.tensor_store import StoreError
from ftexp.machine.runtime import Runtime
from ftexp.machine.transfer import batches_to_device, send
from ftexp.training.inputs.batches import Batch
from ftexp.training.inputs.frozen_pass import FrozenPass

log = logging.getLogger(__name__)

Release = Callable[[], None]


class ActivationBatches:
    """Batches of cached activations, in the order of a sampler.

    Args:
        activations: the activations of all samples, in the order of the samples.
        sampler: which samples are in which batch.
        runtime: the device.
    """

    def __init__(self, activations: KeptActivations, sampler: EpochSampler, runtime: Runtime) -> None:
        self._activations = activations
        self._labels = sampler.labels.to(runtime.device)
        self._device = runtime.device
        self.sampler = sampler
        self.num_batches, self.num_samples = sampler.num_batches, sampler.num_samples
        self.num_images, self.paths = sampler.num_images, sampler.paths

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The activations and labels of an epoch, in its order, from batch ``start`` on."""
        rows = self._activations.of_epoch(epoch)
        parts = self.sampler.own_batches(epoch)[start:]
        rows_of_batches, labels_of_batches = (batches_to_device(parts, d) for d in (rows.device, self._device))
        for of_rows, of_labels in zip(rows_of_batches, labels_of_batches, strict=True):
            yield send(rows.take(of_rows), self._device), self._labels.index_select(0, of_labels)

    def close(self) -> None:
        """Release the activations."""
        self._activations.close()


class KeptActivations:
    """The activations of some samples, view by view; each view is computed when it is first needed.

    Args:
        frozen_pass: computes the activations, or finds them in the cache.
        runtime: the device.
        num_views: number of views; epoch e uses view e modulo this number.
    """

    def __init__(self, frozen_pass: FrozenPass, runtime: Runtime, num_views: int = 1) -> None:
        self._pass = frozen_pass
        self._runtime = runtime
        self._num_views = num_views
        self._opened: dict[int, ActivationRows] = {}
        self.num_found = 0

    def of_epoch(self, epoch: int) -> ActivationRows:
        """The activations for an epoch; the frozen blocks have to be in eval mode."""
        return self.of_view(epoch % self._num_views)

    def of_view(self, view: int) -> ActivationRows:
        """The activations of a view; the frozen blocks have to be in eval mode."""
        if view not in self._opened:
            try:
                self.open(view)
            except StoreError:  # logged by the store; training has begun with activations, and continues with them
                return self._rows(self._pass.in_memory(view))  # for this epoch only: all views would take too much
        return self._opened[view]

    def close(self) -> None:
        """Release all views."""
        self._opened.clear()

    def open(self, view: int) -> None:
        """Compute and cache the activations of a view.

        Raises:
            StoreError: if they cannot be cached.
        """
        started = time.perf_counter()
        kept = self._pass.kept(view)
        self.num_found += kept.found
        self._opened[view] = self._rows(kept)
        if self._pass.is_random:
            how, seconds = "were cached" if kept.found else "were computed", time.perf_counter() - started
            log.info("cache   view %d: the activations of the frozen blocks %s, %.1f s", view, how, seconds)

    def _rows(self, kept: Kept) -> ActivationRows:
        return ActivationRows(kept.rows, kept.notes["layout"], kept.release, self._runtime)


class ActivationRows:
    """The activations of samples: on the device if there is room, else in a memory-mapped file.

    Args:
        rows: the activations [N, ...], with dimensions in the order of memory.
        layout: for each dimension of ``rows``, its index in a batch of the network.
        release: frees the memory of what has been read from the file.
        runtime: the device.
    """

    def __init__(self, rows: torch.Tensor, layout: torch.Tensor, release: Release, runtime: Runtime) -> None:
        order = layout.tolist()
        self._back = tuple(order.index(dim) for dim in range(len(order)))
        self._rows = rows.to(runtime.device) if runtime.memory.take(rows.nbytes) else rows
        self._release = release
        self.num_bytes = rows.nbytes
        self.device = self._rows.device

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        """The rows of some samples, [B, ...]; the indices have to be on the rows' device."""
        rows = self._rows.index_select(0, indices).permute(self._back)
        self._release()
        return rows
