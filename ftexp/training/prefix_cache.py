"""The frozen prefix computed once: training on its kept activations instead of pushing images through it every epoch.

Blocks before the first learning one keep their weights and are in eval mode, so with views that do not change
from epoch to epoch their output is the same in every epoch, phase and trial. None of it is used where that does not
hold.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Iterator

import PIL
import torch
import torchvision

from ftexp.data.digests import content_digest
from ftexp.models.blocks import Network
from ftexp.models.boundary import SplitError, layout_of
from ftexp.models.prefix import split
from ftexp.training.activation_store import ActivationStore
from ftexp.training.batches import ImageBatches, Inputs
from ftexp.training.runtime import Runtime

log = logging.getLogger(__name__)

# Part of every key: a change of what is kept makes older files unknown.
VERSION = 1


class CachedBatches:
    """Batches of kept activations, of the same samples in the same order as the images they stand for.

    Args:
        activations: one row per sample, in the order of the samples.
        images: what they stand for; gives the labels, and the samples of each batch.
    """

    def __init__(self, activations: torch.Tensor, images: ImageBatches, runtime: Runtime) -> None:
        # Rows are gathered along the slowest dimension of memory, and handed out in the layout they came in.
        self._layout = layout_of(activations)
        self._rows = activations.permute(self._layout).contiguous()
        self._back = tuple(self._layout.index(dim) for dim in range(len(self._layout)))
        self._labels = images.labels.to(self._rows.device)
        self._batch_indices = images.batch_indices
        self.paths = images.paths
        self.num_samples = images.num_samples
        self._runtime = runtime

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self._batch_indices(0))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The activations and labels of one epoch, in that epoch's order, from batch ``start`` on."""
        for indices in self._batch_indices(epoch)[start:]:
            chosen = torch.tensor(indices, device=self._rows.device)
            rows = self._rows.index_select(0, chosen).permute(self._back)
            yield (
                rows.to(self._runtime.device, non_blocking=True),
                self._labels.index_select(0, chosen).to(self._runtime.device, non_blocking=True),
            )


def cache_prefix(
    inputs: Inputs, first_learning_block: str, train_in_order: ImageBatches, store: ActivationStore
) -> Inputs:
    """Run the frozen prefix once over train and validation, if it can be cut off and its activations fit.

    To be called with the frozen blocks in eval mode.

    Args:
        inputs: the whole network on images.
        first_learning_block: the prefix is everything before it.
        train_in_order: the training images as they are in every epoch, unshuffled.

    Returns:
        The suffix on activations; ``inputs`` as they were where caching is not possible, with a line saying why.
    """
    network, runtime = inputs.network, inputs.runtime
    started = time.perf_counter()
    kept: list[CachedBatches] = []
    num_bytes, num_found = 0, 0
    try:
        prefix, suffix = split(network, first_learning_block)
        frozen = prefix_digest(network, first_learning_block, runtime)
        for in_order, images in ((train_in_order, inputs.train), (inputs.val, inputs.val)):
            assert isinstance(in_order, ImageBatches)
            assert isinstance(images, ImageBatches)
            collect = _Collector(prefix, in_order, runtime, store.limit_bytes - num_bytes, first_learning_block)
            activations, found = store.get(_key(frozen, in_order), collect)
            num_bytes += activations.nbytes
            num_found += found
            kept.append(CachedBatches(activations.to(runtime.device), images, runtime))
    except SplitError as reason:
        log.info("cache   off: %s", reason)
        return inputs
    log.info(
        "cache   the frozen blocks before %s %s, %.1f s; their activations take %.1f MiB",
        first_learning_block,
        "had run before on these images" if num_found == 2 else "ran once",
        time.perf_counter() - started,
        num_bytes / 2**20,
    )
    return Inputs(network, suffix, kept[0], kept[1], runtime, inputs.class_weights)


def prefix_digest(network: Network, first_learning_block: str, runtime: Runtime) -> str:
    """A name for everything but the images that activations depend on, the weights of the prefix above all."""
    before = network.names[: network.names.index(first_learning_block)]
    facts = {
        "version": VERSION,
        "network": network.name,
        "blocks": before,
        "preprocessing": network.preprocessing.as_dict(),
        "runtime": [runtime.device.type, runtime.precision, str(runtime.memory_format), platform.machine()],
        "cpu": torch.backends.cpu.get_cpu_capability() if runtime.device.type == "cpu" else "",
        "libraries": [torch.__version__, torchvision.__version__, PIL.__version__],
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16)
    for block in before:
        for name, tensor in (*network.parameters(block).items(), *network.buffers(block).items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(frozen: str, images: ImageBatches) -> str:
    digest = hashlib.blake2b(frozen.encode(), digest_size=16)
    for sample in images.samples:
        digest.update(content_digest(sample).encode())
    return digest.hexdigest()


class _Collector:
    """Runs the prefix over all images; raises a SplitError when the activations do not fit or are not one per image."""

    def __init__(
        self,
        prefix: Callable[[torch.Tensor], torch.Tensor],
        images: ImageBatches,
        runtime: Runtime,
        limit_bytes: int,
        block: str,
    ) -> None:
        self._prefix = prefix
        self._images = images
        self._runtime = runtime
        self._limit_bytes = limit_bytes
        self._block = block

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for images, _ in self._images.epoch(0):
            with self._runtime.autocast():
                activations = self._prefix(images)
            if not parts:
                self._check(activations, len(images))
            parts.append(activations)
        return torch.cat(parts)

    def _check(self, activations: torch.Tensor, num_images: int) -> None:
        if len(activations) != num_images:
            rows = len(activations) // num_images
            raise SplitError(f"{rows} rows per image enter {self._block}, where one is expected")
        num_bytes = activations[0].nbytes * len(self._images.samples)
        if num_bytes > self._limit_bytes:
            needed = num_bytes / 2**30
            raise SplitError(
                f"the activations before {self._block} would take {needed:.1f} GiB more (runtime.cache_gib)"
            )
