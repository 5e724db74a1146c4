"""Chooses between the three kinds of batches: cached activations, cached pixels, and decoding workers."""

from __future__ import annotations

import logging
from functools import partial

from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.data.augment.transforms import ImageTransform
from ftexp.data.loading.dataset import ImageDataset
from ftexp.data.loading.kept_pixels import Pixels
from ftexp.data.loading.pixel_store import PixelSource
from ftexp.data.loading.sampler import EpochSampler
from ftexp.machine.runtime import Runtime
from ftexp.training.inputs.activation_batches import ActivationBatches, KeptActivations
from ftexp.training.inputs.batches import BatchContext, ImageBatches, SampledBatches
from ftexp.training.inputs.pixel_batches import PixelBatches
from ftexp.training.inputs.worker_batches import WorkerBatches

log = logging.getLogger(__name__)


def choose_batches(
    sampler: EpochSampler,
    transform: ImageTransform,
    context: BatchContext,
    augmentation: BatchAugmentation | None = None,
    activations: KeptActivations | None = None,
) -> SampledBatches:
    """Choose the batches with the least work per epoch; for training, a log line says which, and why.

    Args:
        sampler: which samples are in which batch.
        transform: the transform of each image.
        context: what all batches of a run share.
        augmentation: augmentation of whole batches on the device, which replaces the random part of ``transform``.
        activations: cached activations of the samples, which are used instead of images.
    """
    if activations is None:
        return image_batches(sampler, transform, context, augmentation)
    _say(sampler, "cached activations: the frozen blocks run once on every view of an image")
    return ActivationBatches(activations, sampler, context.runtime)


def image_batches(
    sampler: EpochSampler,
    transform: ImageTransform,
    context: BatchContext,
    augmentation: BatchAugmentation | None = None,
) -> ImageBatches:
    """Choose batches of images, as ``choose_batches`` does where there are no cached activations."""
    if (reason := _why_pixels_are_not_kept(sampler, context)) is not None:
        _say(sampler, f"decoding workers: {reason}")
        return _worker_batches(sampler, transform, context)
    source = _pixel_source(sampler, transform, context)
    if transform.is_random and augmentation is None:
        _say(sampler, "decoding workers: decoded images are cached, and augmented one by one on the CPU")
        return _worker_batches(sampler, transform, context, source)
    how = "whole batches are augmented on the device" if augmentation else "there is no augmentation"
    _say(sampler, f"cached pixels: {how}")
    if sampler.settings.keep_pixels == "device":
        source.when_opened = partial(_keep_on_device, context.runtime)
    return PixelBatches(source, augmentation, _worker_batches(sampler, transform, context), context)


def _say(sampler: EpochSampler, why: str) -> None:
    log.log(logging.INFO if sampler.settings.shuffle else logging.DEBUG, "batches %s", why)


def _why_pixels_are_not_kept(sampler: EpochSampler, context: BatchContext) -> str | None:
    """Why decoded images are not cached; None if they are, as far as they fit."""
    if sampler.settings.keep_pixels == "no":
        return "every image is read once"
    if context.pixels is None:
        return "decoded images are not cached (runtime.pixels=off)"
    if any(sample.pixels is not None for sample in sampler.samples):
        return "the images are already in memory"
    return None


def _worker_batches(
    sampler: EpochSampler, transform: ImageTransform, context: BatchContext, source: PixelSource | None = None
) -> WorkerBatches:
    dataset = ImageDataset(sampler.samples, sampler.labels, transform, sampler.settings, source)
    return WorkerBatches(dataset, sampler, context)


def _pixel_source(sampler: EpochSampler, transform: ImageTransform, context: BatchContext) -> PixelSource:
    assert context.pixels is not None
    return PixelSource(sampler.samples, transform, context.pixels, context.digests)


def _keep_on_device(runtime: Runtime, pixels: Pixels) -> None:
    """Move decoded images to the device if there is room."""
    if runtime.memory.take(pixels.num_bytes):
        pixels.move(runtime.device)
