"""Whether the frozen prefix can be computed once: training then has its kept activations in the place of images.

Blocks before the first learning one keep their weights and are in eval mode, so what they make of a view of an image
is the same in every epoch, phase and trial. None of it is used where that does not hold.
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
from ftexp.training.inputs.batches import BatchContext, Forward, SampledBatches
from ftexp.training.inputs.prefix_key import prefix_digest

log = logging.getLogger(__name__)

# augment.views=auto: fewer cost accuracy (benchmarks/results.md, "Views of an image"), more cost time.
AUTO_VIEWS = 8


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """A network cut in two, and what its first part makes of the images.

    Attributes:
        suffix: activations -> logits.
    """

    suffix: Forward
    train: KeptActivations
    val: KeptActivations


def keep_prefix(
    network: Network,
    first_learning_block: str,
    phase: Phase,
    train_images: SampledBatches,
    val_images: SampledBatches,
    context: BatchContext,
) -> KeptPrefix | None:
    """Run the frozen prefix once over train and validation, if it can be cut off and its activations fit.

    To be called with the frozen blocks in eval mode.

    Args:
        first_learning_block: the prefix is everything before it.
        phase: its augmentation decides how many views are kept, never more than it has epochs.
        train_images: in their own order and whole on every rank, of which the first one computes the activations;
            epoch v shows view v. ``val_images`` likewise.

    Returns:
        None where it is not possible, with a line saying why.
    """
    started, augment, runtime = time.perf_counter(), phase.augment, context.runtime
    if (reason := _why_views_differ(augment)) is not None:
        log.info("cache   off: %s", reason)
        return None
    try:
        prefix, suffix = _cut(network, first_learning_block)
        num_views = _choose_views(prefix, phase, train_images, val_images, context, first_learning_block)
    except SplitError as error:
        log.info("cache   off: %s", error)
        return None
    frozen = prefix_digest(network, first_learning_block, runtime)
    random = f"{augment.image_changes()} {train_images.sampler.settings.seed}" if augment.changes_images else ""
    train = KeptActivations(prefix, frozen, train_images, context, num_views, random)
    val = KeptActivations(prefix, frozen, val_images, context)
    unkept = not (_can_open(val) and (bool(random) or _can_open(train)))
    if runtime.ranks.all_reduce_max(unkept):  # on whichever rank
        return None
    num_bytes = val.of_view(0).num_bytes
    if random:
        log.info("cache   %d views of every training image (augment.views=%s)", num_views, augment.views)
    else:
        num_bytes += train.of_view(0).num_bytes
        anything_new = runtime.ranks.all_reduce_max(train.num_found + val.num_found < 2)  # on whichever rank
        log.info(
            "cache   the frozen blocks before %s %s, %.1f s; their activations take %.1f MiB",
            first_learning_block,
            "ran once" if anything_new else "had run before on these images",
            time.perf_counter() - started,
            num_bytes / 2**20,
        )
    return KeptPrefix(suffix, train, val)


def _why_views_differ(augment: AugmentConfig) -> str | None:
    """Why frozen blocks see other images in every epoch; None: they do not."""
    if augment.mixes_batches:
        return "mixup and CutMix mix the images of a batch before the frozen blocks see them"
    if augment.changes_images and augment.views == "inf":
        return "augmentation shows other images in every epoch (augment.views=inf)"
    return None


def _cut(network: Network, first_learning_block: str) -> tuple[Prefix, Forward]:
    """The two parts of a network, the first of which gives the same activations every time.

    Raises:
        SplitError: if there is no such part.
    """
    prefix, suffix = split(network, first_learning_block)
    assert isinstance(prefix, Prefix)
    if prefix.rows_per_image != 1:
        raise SplitError(f"{prefix.rows_per_image} rows per image enter {first_learning_block}, not one")
    if prefix.draws(trial_images(network)[0]):
        raise SplitError(f"{network.name} has dropout before {first_learning_block}, which is drawn anew every time")
    return prefix, suffix


def _choose_views(
    prefix: Prefix,
    phase: Phase,
    train_images: SampledBatches,
    val_images: SampledBatches,
    context: BatchContext,
    first_learning_block: str,
) -> int:
    """How many views of the training images are kept.

    Raises:
        SplitError: if they do not fit.
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
    """Have the first view kept, if it can be; where not, the store has said why."""
    try:
        activations.open(0)
    except StoreError:
        return False
    return True
