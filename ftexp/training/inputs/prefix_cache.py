"""Caches the activations of the frozen prefix, so that training uses them instead of images.

The blocks before the first trainable one are frozen and in eval mode. So the activations of a view of an image are the
same in every epoch, phase and trial. If that does not hold, nothing is cached.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from ftexp.config import AugmentConfig
from ftexp.data.loading.tensor_store import StoreError
from ftexp.finetune.phases import Phase
from ftexp.models.block_boundary import SplitError, trial_images
from ftexp.models.blocks import Network
from ftexp.models.prefix import Prefix, split
from ftexp.training.inputs.activation_batches import KeptActivations
from ftexp.training.inputs.batches import BatchContext, Forward, ImageBatches
from ftexp.training.inputs.frozen_engine import engine_of
from ftexp.training.inputs.frozen_pass import FrozenPass
from ftexp.training.inputs.prefix_key import EAGER, prefix_digest

log = logging.getLogger(__name__)

# Views with augment.views=auto: fewer cost accuracy (benchmarks/results.md, "Views of an image"), more cost time.
AUTO_VIEWS = 8


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """The cached activations of a network's prefix, and its suffix.

    Attributes:
        suffix: function from activations to logits [B, C].
        train: activations of the training samples.
        val: activations of the validation samples.
        engine: what runs the frozen blocks, ``eager`` or ``onnxruntime``.
    """

    suffix: Forward
    train: KeptActivations
    val: KeptActivations
    engine: str


def keep_prefix(
    network: Network,
    first_learning_block: str,
    phase: Phase,
    train_images: ImageBatches,
    val_images: ImageBatches,
    context: BatchContext,
    asked: str,
) -> KeptPrefix | None:
    """Run the frozen prefix once over the training and validation samples, and cache its activations.

    The frozen blocks have to be in eval mode.

    Args:
        network: the network.
        first_learning_block: the first trainable block; the prefix is everything before it.
        phase: the phase, whose augmentation decides on the number of views; it is at most the number of epochs.
        train_images: batches of all training samples in order, the same on every rank; epoch v gives view v.
        val_images: the same for the validation samples.
        context: what all batches of a run share.
        asked: what is to run the prefix, ``eager`` or ``onnxruntime``.

    Returns:
        The activations and the suffix; None if they cannot be cached, and then a log line says why.
    """
    started, augment, runtime = time.perf_counter(), phase.augment, context.runtime
    if (reason := why_views_differ(augment)) is not None:
        log.info("cache   off: %s", reason)
        return None
    try:
        prefix, suffix = _cut(network, first_learning_block)
        num_views = _choose_views(prefix, phase, train_images, val_images, context, first_learning_block)
    except SplitError as error:
        log.info("cache   off: %s", error)
        return None
    frozen = prefix_digest(network, first_learning_block, runtime)
    engine = engine_of(asked, network, prefix, frozen, context.activations)
    random = f"{augment.image_changes()} {train_images.sampler.settings.seed}" if augment.changes_images else ""
    train = KeptActivations(FrozenPass(engine, frozen, train_images, context, random), runtime, num_views)
    val = KeptActivations(FrozenPass(engine, frozen, val_images, context), runtime)
    for activations in (val,) if random else (val, train):
        if runtime.ranks.all_reduce_max(not _can_open(activations)):  # on any rank
            return None
    num_bytes = val.of_view(0).num_bytes
    if random:
        log.info("cache   %d views of every training image (augment.views=%s)", num_views, augment.views)
    else:
        num_bytes += train.of_view(0).num_bytes
        anything_new = runtime.ranks.all_reduce_max(train.num_found + val.num_found < 2)  # on any rank
        log.info(
            "cache   the activations before %s %s%s, %.1f s; they take %.1f MiB",
            first_learning_block,
            "were computed once" if anything_new else "of these images were cached",
            "" if engine.name == EAGER else " by ONNX Runtime",
            time.perf_counter() - started,
            num_bytes / 2**20,
        )
    return KeptPrefix(suffix, train, val, engine.name)


def why_views_differ(augment: AugmentConfig) -> str | None:
    """Why the frozen blocks get new images in every epoch; None if they do not."""
    if augment.mixes_batches:
        return "mixup and CutMix mix the images of a batch before the frozen blocks"
    if augment.changes_images and augment.views == "inf":
        return "augmentation makes new images in every epoch (augment.views=inf)"
    return None


def _cut(network: Network, first_learning_block: str) -> tuple[Prefix, Forward]:
    """Split a network; the prefix gives the same activations every time.

    Raises:
        SplitError: if the network cannot be split like this.
    """
    prefix, suffix = split(network, first_learning_block)
    assert isinstance(prefix, Prefix)
    if prefix.rows_per_image != 1:
        raise SplitError(f"{prefix.rows_per_image} rows per image enter {first_learning_block} instead of one")
    if prefix.draws(trial_images(network)[0]):
        raise SplitError(f"{network.name} draws random numbers, as dropout does, before {first_learning_block}")
    return prefix, suffix


def _choose_views(
    prefix: Prefix,
    phase: Phase,
    train_images: ImageBatches,
    val_images: ImageBatches,
    context: BatchContext,
    first_learning_block: str,
) -> int:
    """Number of views of the training images to cache.

    Raises:
        SplitError: if they do not fit into the cache.
    """
    augment = phase.augment
    num_views = 1 if not augment.changes_images else augment.num_views or min(AUTO_VIEWS, phase.epochs)
    num_images = num_views * train_images.num_samples + val_images.num_samples
    missing = num_images * prefix.bytes_per_image - context.activations.limit_bytes
    if missing > 0:
        raise SplitError(
            f"the activations before {first_learning_block} would take {missing / 2**30:.1f} GiB more "
            "(runtime.cache_gib)"
        )
    return num_views


def _can_open(activations: KeptActivations) -> bool:
    """Cache the first view; False if that is not possible, and then the store has logged why."""
    try:
        activations.open(0)
    except StoreError:
        return False
    return True
