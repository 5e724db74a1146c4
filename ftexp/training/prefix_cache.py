"""The frozen prefix computed once: activations kept in memory instead of images pushed through it every epoch.

Blocks before the first learning one keep their weights and are in eval mode, so with views that do not change
from epoch to epoch their output is the same in every epoch. None of it is used where that does not hold.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import torch

from ftexp.models.boundary import SplitError, layout_of
from ftexp.models.prefix import split
from ftexp.training.batches import ImageBatches, Inputs
from ftexp.training.runtime import Runtime

log = logging.getLogger(__name__)


class CachedBatches:
    """Batches of kept activations, of the same samples in the same order as the images they stand for.

    Args:
        activations: one row per sample, in the order of the samples.
        labels: int64, one per sample.
        batch_indices: epoch -> the samples of each of its batches.
    """

    def __init__(
        self,
        activations: torch.Tensor,
        labels: torch.Tensor,
        batch_indices: Callable[[int], list[list[int]]],
        runtime: Runtime,
    ) -> None:
        # Rows are gathered along the slowest dimension of memory, and handed out in the layout they came in.
        self._layout = layout_of(activations)
        self._rows = activations.permute(self._layout).contiguous()
        self._back = tuple(self._layout.index(dim) for dim in range(len(self._layout)))
        self._labels = labels
        self._batch_indices = batch_indices
        self._runtime = runtime

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self._batch_indices(0))

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The activations and labels of one epoch, in that epoch's order."""
        for indices in self._batch_indices(epoch):
            chosen = torch.tensor(indices, device=self._rows.device)
            rows = self._rows.index_select(0, chosen).permute(self._back)
            yield (
                rows.to(self._runtime.device, non_blocking=True),
                self._labels.index_select(0, chosen).to(self._runtime.device, non_blocking=True),
            )


def cache_prefix(inputs: Inputs, first_learning_block: str, train_in_order: ImageBatches, limit_gib: float) -> Inputs:
    """Run the frozen prefix once over train and validation, if it can be cut off and its activations fit.

    To be called with the frozen blocks in eval mode.

    Args:
        inputs: the whole network on images.
        first_learning_block: the prefix is everything before it.
        train_in_order: the training images as they are in every epoch, unshuffled.
        limit_gib: most memory that the activations may take.

    Returns:
        The suffix on activations; ``inputs`` as they were where caching is not possible, with a line saying why.
    """
    network, runtime = inputs.network, inputs.runtime
    started = time.perf_counter()
    try:
        prefix, suffix = split(network, first_learning_block)
        kept = []
        spare = limit_gib * 2**30
        for batches, order in ((train_in_order, inputs.train), (inputs.val, inputs.val)):
            assert isinstance(batches, ImageBatches)
            assert isinstance(order, ImageBatches)
            activations, labels = _collect(prefix, batches, runtime, spare, first_learning_block)
            spare -= activations.nbytes
            kept.append(CachedBatches(activations, labels, order.batch_indices, runtime))
    except SplitError as reason:
        log.info("cache   off: %s", reason)
        return inputs
    used = limit_gib * 2**30 - spare
    log.info(
        "cache   the frozen blocks before %s ran once, in %.1f s; their activations take %.0f MiB",
        first_learning_block,
        time.perf_counter() - started,
        used / 2**20,
    )
    return Inputs(network, suffix, kept[0], kept[1], runtime, inputs.class_weights)


@torch.no_grad()
def _collect(
    prefix: Callable[[torch.Tensor], torch.Tensor], batches: ImageBatches, runtime: Runtime, limit: float, block: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations and labels of all samples; a SplitError when they do not fit or are not one row per sample."""
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    for images, labels in batches.epoch(0):
        with runtime.autocast():
            activations = prefix(images)
        if len(activations) != len(images):
            raise SplitError(f"{len(activations) // len(images)} rows per image enter {block}, where one is expected")
        if not parts and activations[0].nbytes * batches.num_samples > limit:
            needed = activations[0].nbytes * batches.num_samples / 2**30
            raise SplitError(f"the activations before {block} would take {needed:.1f} GiB more (runtime.cache_gib)")
        parts.append((activations, labels))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
