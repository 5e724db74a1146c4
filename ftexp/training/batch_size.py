"""``train.batch_size=auto``: the largest batch that fits into memory and leaves enough updates in an epoch."""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ftexp.config import Config
from ftexp.errors import DeviceError, out_of_memory
from ftexp.finetune.adapters import prepared
from ftexp.finetune.epochs import epoch_of, smallest_batch
from ftexp.finetune.freezing import open_blocks, set_train_mode
from ftexp.finetune.phases import Phase, deepest
from ftexp.machine.accelerator import empty_cache, forget_peak, is_accelerator, peak_bytes
from ftexp.machine.distributed import ONE_PROCESS, Ranks
from ftexp.machine.generators import forked_generators
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.folding import FoldedForward, folds
from ftexp.training.inputs.batches import Forward

log = logging.getLogger(__name__)

# A small dataset may fit into one batch as a whole, but a phase of a few updates learns nothing.
MIN_UPDATES_PER_EPOCH = 16
LARGEST = 1024
# The first size that is tried: a GPU prepares its kernels for each size, which takes seconds, and has room for more.
FIRST_TRIED = 16
# A gradient and two optimizer states for every trainable weight.
STATES_PER_WEIGHT = 3

Measure = Callable[[int], float]


def settle_batch_size(
    config: Config,
    network: Network,
    phases: Sequence[Phase],
    runtime: Runtime,
    num_samples: int,
    known: int | None = None,
) -> Config:
    """Replace ``train.batch_size=auto`` by the number of images per batch over all ranks.

    Weights, running statistics and random state stay as they are.

    Args:
        config: the configuration of the run.
        network: the network on its device.
        phases: the phases of the run; the one with the most trainable blocks is measured.
        runtime: the device and the ranks.
        num_samples: number of training images.
        known: the batch size of a run that is resumed; its training step is still measured, to reserve its memory.

    Returns:
        The configuration with a number; unchanged if it has one already.

    Raises:
        DeviceError: if not even the smallest batch fits.
    """
    if config.train.batch_size != "auto":
        return config
    ranks = runtime.ranks
    least = max(smallest_batch(network, phase, ranks.size) for phase in phases) // ranks.size or 1
    most = num_samples // (config.train.accumulate * MIN_UPDATES_PER_EPOCH * ranks.size)
    deep = deepest(phases)
    size = network.preprocessing.image_size
    taken: dict[int, float] = {}

    def remembered(images: int) -> float:
        taken[images] = max(measure(images) for measure in measures)
        return taken[images]

    with _as_trained(network, deep, runtime.device) as module:
        free = runtime.memory.most_for_step()
        forwards = _forwards(module, deep, config, runtime)
        measures: list[Measure]
        if is_accelerator(runtime.device):
            measures = [partial(_peak_bytes, forward, module, size, runtime) for forward in forwards]
        else:
            measures = [partial(_sum_of, *_saved_bytes(forward, module, size, runtime)) for forward in forwards]
            free -= STATES_PER_WEIGHT * sum(p.nbytes for p in module.parameters() if p.requires_grad)
        if known is None:
            own = largest_that_fits(remembered, free, min(most, LARGEST), least=least, ranks=ranks)
        else:
            own = known // ranks.size
            _fits(remembered, own, free)
    runtime.memory.promise_step(taken.get(own, free))  # all free memory, if that step ran out of it
    settled = replace(config.train, batch_size=own * ranks.size)
    updates = epoch_of(deep, network, settled, num_samples, ranks.size).num_updates
    log.info("batch   %d images of %d px: %d updates in an epoch", own * ranks.size, size, updates)
    return replace(config, train=settled)


def largest_that_fits(measure: Measure, free: float, most: int, *, least: int = 1, ranks: Ranks = ONE_PROCESS) -> int:
    """The largest power of two, up to ``most``, whose batch takes no more than ``free`` bytes on any rank.

    Sizes double from ``FIRST_TRIED`` on; smaller ones are tried only if that does not fit. The ranks agree after every
    size, so that all of them measure the same ones: a training step may hold collectives.

    Args:
        measure: function from the images in a rank's batch to the bytes of a training step; it may raise an
            out-of-memory error instead.
        free: bytes that are free on this rank.
        most: the largest batch to try, in images of one rank.
        least: the smallest batch, even if ``most`` is smaller; a power of two.
        ranks: the processes of the run.

    Returns:
        Images in a batch of one rank.

    Raises:
        DeviceError: on all ranks, if the smallest batch does not fit on one of them.
    """

    def all_fit(size: int) -> bool:
        return not ranks.all_reduce_max(not _fits(measure, size, free))

    sizes = [least]
    while 2 * sizes[-1] <= most:
        sizes.append(2 * sizes[-1])
    first = max((number for number, size in enumerate(sizes) if size <= FIRST_TRIED), default=0)
    if all_fit(sizes[first]):
        fits = max(itertools.takewhile(all_fit, sizes[first + 1 :]), default=sizes[first])
    else:
        fits = next(filter(all_fit, reversed(sizes[:first])), 0)
    if not fits:
        images = "one image does" if least == 1 else f"{least} images do"
        memory = f"{max(free, 0) / 2**30:.1f} GiB of free memory"
        if ranks.size > 1:
            memory = f"the free memory of each of the {ranks.size} processes (here {memory})"
        raise DeviceError(
            f"train.batch_size=auto: {images} not fit into {memory}. Train fewer blocks, use a smaller model or "
            "data.image_size, or free some memory."
        )
    return fits


def _fits(measure: Measure, size: int, free: float) -> bool:
    try:
        return measure(size) <= free
    except Exception as error:
        if out_of_memory(error) is not None:
            return False
        raise


@contextmanager
def _as_trained(network: Network, phase: Phase, device: torch.device) -> Iterator[nn.Module]:
    """A copy of the network in the phase's mode, so that measuring does not change the running statistics."""
    with prepared(network, phase.change), forked_generators(device):
        open_blocks(network, phase)
        set_train_mode(network, phase)
        yield copy.deepcopy(network.module)


def _forwards(module: nn.Module, phase: Phase, config: Config, runtime: Runtime) -> list[Forward]:
    """What a step of the phase may run: whether it is compiled, and then not folded, is decided by the batch size."""
    if not folds(phase, config.runtime, runtime.device):
        return [module]
    folded = FoldedForward(module, module, runtime)
    return [module, folded] if runtime.compile else [folded]


def _step(forward: Forward, images: int, size: int, runtime: Runtime) -> Tensor:
    batch = runtime.place_images(torch.zeros(max(images, 1), 3, size, size))
    with runtime.autocast():
        logits = forward(batch)
    return logits.float().logsumexp(1).sum()


def _saved_bytes(forward: Forward, module: nn.Module, size: int, runtime: Runtime) -> tuple[float, float]:
    """Bytes of what autograd saves for the backward pass, without weights: of any batch, and of each of its images."""
    pair = 2  # BatchNorm in training mode cannot compute statistics of a single image
    of_pair = _saved_of(forward, module, pair, size, runtime)
    if not isinstance(forward, FoldedForward):
        return 0.0, of_pair / pair
    of_one = _saved_of(forward, module, pair + 1, size, runtime) - of_pair  # the folded weights are saved once
    return of_pair - pair * of_one, of_one


def _saved_of(forward: Forward, module: nn.Module, images: int, size: int, runtime: Runtime) -> float:
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    seen: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = _step(forward, images, size, runtime)
    return sum(seen.values()) + images * 3 * size * size * loss.element_size()


def _sum_of(of_batch: float, of_image: float, images: int) -> float:
    return of_batch + of_image * images


def _peak_bytes(forward: Forward, module: nn.Module, size: int, runtime: Runtime, images: int) -> float:
    """Peak memory in bytes of a training step on an accelerator, measured by running one."""
    device = runtime.device
    empty_cache(device)
    before = forget_peak(device)
    try:
        torch.autograd.backward(_step(forward, max(images, 2), size, runtime))
        states = sum(p.nbytes for p in module.parameters() if p.requires_grad) * (STATES_PER_WEIGHT - 1)
        return peak_bytes(device) - before + states
    finally:
        module.zero_grad(set_to_none=True)
        empty_cache(device)
