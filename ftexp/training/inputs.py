"""From the splits to what each phase trains on: images, or activations of the frozen prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from ftexp.config import AugmentConfig, Config
from ftexp.data.batch_augmentation import BatchAugmentation
from ftexp.data.loading import Loader, make_loader
from ftexp.data.pixel_store import Pixels, PixelSource
from ftexp.data.samples import Sample
from ftexp.data.splits import Splits
from ftexp.data.tensor_store import TensorStore
from ftexp.data.transforms import ImageTransform, Normalizer, eval_transform, train_transform
from ftexp.errors import DataError, WorkerError
from ftexp.finetune.epochs import EpochLength, epoch_of, smallest_batch
from ftexp.finetune.phases import Phase
from ftexp.models.blocks import Network
from ftexp.ranks import ALONE
from ftexp.training.batches import ImageBatches, Inputs
from ftexp.training.imbalance import class_counts
from ftexp.training.losses import build_loss
from ftexp.training.mixing import mix
from ftexp.training.prefix_cache import CachedBatches, cache_prefix
from ftexp.training.runtime import Runtime

log = logging.getLogger(__name__)


class InputSource:
    """Opens what a phase needs, and lets all of it go at the end of a ``with``, its place on the device with it."""

    def __init__(self, config: Config, network: Network, splits: Splits, runtime: Runtime) -> None:
        self._config = config
        self._network = network
        self._runtime = runtime
        self._splits = splits
        self._normalizer = Normalizer(network.preprocessing)
        self._opened: list[Loader | CachedBatches] = []
        settings = config.runtime
        folder = Path(settings.cache_folder).expanduser()
        self._pixels = TensorStore(folder, settings.cache_gib)
        self._activations = TensorStore(folder if settings.cache in ("auto", "disk") else None, settings.cache_gib)

    def __enter__(self) -> InputSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for batches in self._opened:
            batches.close()  # whoever still has them
        self._runtime.memory.end_phase()
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):  # torch's, at any line of ours
            raise WorkerError(
                "A process that decodes images has died; out of memory is the usual reason. Use fewer with "
                "runtime.workers, or none with runtime.workers=0. Go on with resume=FOLDER OF THE RUN."
            ) from error

    def for_phase(self, phase: Phase) -> Inputs:
        """What a phase trains and validates on; its frozen blocks have to be in eval mode.

        Images through the whole network; or, where the views of an image never change and the leading blocks are
        frozen, activations through the blocks that learn.
        """
        network, augment, seed = self._network, phase.augment, self._config.runtime.seed
        transform = train_transform(network.preprocessing, augment)
        length = self._epoch_of(phase)
        images = self._open(
            self._splits.train,
            transform,
            length,
            views=augment.num_views,
            batch_augmentation=self._batch_augmentation(augment),
        )
        as_it_is = eval_transform(network.preprocessing)
        val = self._open(self._splits.val, as_it_is, keep=True)
        loss = build_loss(self._config.loss, class_counts(self._splits.train, self._splits.classes))
        train = mix(images, augment, network.num_classes, seed)
        inputs = Inputs(network, network.module, train, val, self._runtime, loss)
        first = phase.learning[0]
        if self._config.runtime.cache == "off":
            return inputs
        if first == network.names[0]:
            if phase.part is not None:
                log.info("cache   off: %s learn in the first block already (%s)", phase.part.kind, first)
            return inputs
        if (reason := _why_not(augment)) is not None:
            log.info("cache   off: %s", reason)
            return inputs
        in_order = (
            self._open(self._splits.train, transform, keep=True, whole=True),
            self._open(self._splits.val, as_it_is, keep=True, whole=True),
        )
        digests = self._splits.digests
        cached = cache_prefix(inputs, first, in_order, self._activations, digests, augment, phase.epochs, seed)
        self._opened += [batches for batches in (cached.train, cached.val) if isinstance(batches, CachedBatches)]
        return cached

    def for_scoring(self, samples: Sequence[Sample]) -> ImageBatches:
        """Samples as they are, in their order."""
        return self._open(samples, eval_transform(self._network.preprocessing))

    def _open(
        self,
        samples: Sequence[Sample],
        transform: ImageTransform,
        length: EpochLength | None = None,
        *,
        views: int | None = None,
        batch_augmentation: BatchAugmentation | None = None,
        keep: bool = False,
        whole: bool = False,
    ) -> ImageBatches:
        """This rank's part of batches of samples.

        Args:
            length: of an epoch of training, which shuffles; None: all samples in their order.
            whole: all of every batch, on every rank.

        Raises:
            DataError: when there are too few images for the ranks.
        """
        ranks = ALONE if whole else self._runtime.ranks
        if len(samples) < 2 * ranks.size and ranks.size > 1:
            raise DataError(f"{len(samples)} images are too few for {ranks.size} processes; start fewer.")
        loader = make_loader(
            samples,
            self._splits.class_to_idx,
            transform,
            self._config.train.images_per_step,
            shuffle=length is not None,
            seed=self._config.runtime.seed,
            workers=self._runtime.workers,
            pin_memory=self._runtime.device.type == "cuda",
            balanced=length is not None and self._config.data.sampler == "balanced",
            num_images=length.num_images if length else None,
            views=views,
            source=(
                self._pixel_source(samples, transform, batch_augmentation, read_once=whole)
                if length is not None or keep
                else None
            ),
            batch_augmentation=batch_augmentation,
            ranks=ranks,
        )
        self._opened.append(loader)
        return ImageBatches(loader, self._normalizer, self._runtime)

    def _epoch_of(self, phase: Phase) -> EpochLength:
        """How long an epoch is, with a line where it leaves out images."""
        num_samples, num_processes = len(self._splits.train), self._runtime.ranks.size
        length = epoch_of(phase, self._network, self._config.train, num_samples, num_processes)
        if length.num_left_out > 0:
            log.info(
                "data    %s: an epoch leaves out %d of the %d training images, others each time: BatchNorm takes its "
                "statistics from at least %d in a batch (train.batch_size, bn_policy)",
                phase.name,
                length.num_left_out,
                num_samples,
                smallest_batch(self._network, phase, num_processes),
            )
        return length

    def _batch_augmentation(self, augment: AugmentConfig) -> BatchAugmentation | None:
        """The augmentation on the device, where there is room for images, and every epoch shows views of its own.

        Views that come again are torchvision's on every device: what frozen blocks make of them is kept.
        """
        preprocessing, runtime = self._network.preprocessing, self._runtime
        fresh = augment.changes_images and augment.num_views is None
        if not fresh or not runtime.memory.keeps or not BatchAugmentation.can_do(preprocessing):
            return None
        return BatchAugmentation(preprocessing, augment, self._config.runtime.seed, runtime.device)

    def _pixel_source(
        self,
        samples: Sequence[Sample],
        transform: ImageTransform,
        batch_augmentation: BatchAugmentation | None,
        *,
        read_once: bool,
    ) -> PixelSource | None:
        """Decoded images of files; images in memory are decoded already.

        Args:
            read_once: they are not used again, so that the device has nothing of keeping them.
        """
        if self._config.runtime.pixels == "off" or any(sample.pixels is not None for sample in samples):
            return None
        used_whole = batch_augmentation is not None or not transform.is_random
        opened = partial(_keep_on_device, self._runtime) if used_whole and not read_once else _leave_where_they_are
        return PixelSource(samples, transform, self._pixels, self._splits.digests, opened)


def _keep_on_device(runtime: Runtime, pixels: Pixels) -> None:
    """Move decoded images to the device, if there is room for them."""
    if runtime.memory.take(pixels.num_bytes):
        pixels.move(runtime.device)


def _leave_where_they_are(_: Pixels) -> None:
    """Images that are changed one by one, on the CPU, or read only once."""


def _why_not(augment: AugmentConfig) -> str | None:
    """Why what frozen blocks make of the images cannot be kept; None: it can."""
    if augment.mixes_batches:
        return "mixup and CutMix mix the images of a batch before the frozen blocks see them"
    if augment.changes_images and augment.views == "inf":
        return "augmentation shows other images in every epoch (augment.views=inf)"
    return None
