"""Makes the batches of each phase from the splits: images, or activations of the frozen prefix."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from ftexp.config import AugmentConfig, Config, RuntimeConfig
from ftexp.data.augment.batch_augmentation import BatchAugmentation
from ftexp.data.augment.transforms import ImageTransform, Normalizer, eval_transform, train_transform
from ftexp.data.loading.sampler import BatchSettings, EpochSampler
from ftexp.data.loading.tensor_store import TensorStore
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits
from ftexp.errors import WorkerError
from ftexp.finetune.epochs import epoch_of, smallest_batch
from ftexp.finetune.phases import Phase
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import Network
from ftexp.training.imbalance import class_counts
from ftexp.training.inputs.activation_batches import KeptActivations
from ftexp.training.inputs.batches import BatchContext, Batches, Forward, Inputs, SampledBatches
from ftexp.training.inputs.choose_batches import choose_batches, image_batches
from ftexp.training.inputs.frozen_engine import choose_engine
from ftexp.training.inputs.prefix_cache import KeptPrefix, keep_prefix
from ftexp.training.losses import build_loss
from ftexp.training.mixing import mix

log = logging.getLogger(__name__)


def activation_store(settings: RuntimeConfig) -> TensorStore:
    """The store for the activations of frozen blocks; without a folder if they are not kept for later runs."""
    folder = Path(settings.cache_folder).expanduser() if settings.cache in ("auto", "disk") else None
    return TensorStore(folder, settings.cache_gib)


class InputSource:
    """Opens the batches of phases, and closes all of them at the end of a ``with``, which frees memory on the device.

    Args:
        config: the configuration of the run.
        network: the network on its device.
        splits: the samples.
        runtime: the device and the ranks.
    """

    def __init__(self, config: Config, network: Network, splits: Splits, runtime: Runtime) -> None:
        self._config = config
        self._network = network
        self._runtime = runtime
        self._splits = splits
        self._opened: list[Batches] = []
        # What ran the frozen blocks of the last phase; None: no phase has had any.
        self.frozen_engine: str | None = None
        settings = config.runtime
        folder = Path(settings.cache_folder).expanduser()
        self._context = BatchContext(
            runtime,
            Normalizer(network.preprocessing),
            splits.digests,
            pixels=TensorStore(folder, settings.cache_gib) if settings.pixels != "off" else None,
            activations=activation_store(settings),
        )

    def __enter__(self) -> InputSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for batches in self._opened:
            batches.close()
        self._runtime.memory.end_phase()
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):  # may be raised in any line
            raise WorkerError(
                "A process that decodes images has died, usually because memory ran out. Use fewer processes with "
                "runtime.workers, or none with runtime.workers=0. Resume with resume=FOLDER OF THE RUN."
            ) from error

    def for_phase(self, phase: Phase) -> Inputs:
        """The batches and the forward of a phase; its frozen blocks have to be in eval mode.

        These are images and the whole network. If the first blocks are frozen and the views of an image are repeated,
        they are activations and the suffix of the network.
        """
        network, augment, config = self._network, phase.augment, self._config
        transform, as_it_is = train_transform(network.preprocessing, augment), eval_transform(network.preprocessing)
        train, val = self._train_sampler(phase), self._sampler(self._splits.val, self._unshuffled)
        loss = build_loss(config.loss, class_counts(self._splits.train, self._splits.classes))
        kept = self._keep_prefix(phase, transform, as_it_is)
        train_batches = self._open(train, transform, self._batch_augmentation(augment), kept.train if kept else None)
        val_batches = self._open(val, as_it_is, activations=kept.val if kept else None)
        mixed = mix(train_batches, augment, network.num_classes, config.runtime.seed)
        forward = kept.suffix if kept else network.module
        return Inputs(network, forward, mixed, val_batches, self._runtime, loss)

    def in_order(self, phase: Phase) -> tuple[Forward, SampledBatches, SampledBatches]:
        """The forward of a phase, and batches of all training and all validation samples, in order and not augmented.

        The frozen blocks have to be in eval mode. If they can be cached, the batches are their activations.
        """
        transform = eval_transform(self._network.preprocessing)
        kept = self._keep_prefix(replace(phase, augment=AugmentConfig()), transform, transform)
        train, val = (
            self._open(self._sampler(samples, self._unshuffled), transform, activations=activations)
            for samples, activations in (
                (self._splits.train, kept.train if kept else None),
                (self._splits.val, kept.val if kept else None),
            )
        )
        return kept.suffix if kept else self._network.module, train, val

    def for_scoring(self, samples: Sequence[Sample]) -> Batches:
        """Batches of the samples in order, without augmentation and without caching."""
        sampler = self._sampler(samples, replace(self._unshuffled, keep_pixels="no"))
        return self._open(sampler, eval_transform(self._network.preprocessing))

    def _open(
        self,
        sampler: EpochSampler,
        transform: ImageTransform,
        augmentation: BatchAugmentation | None = None,
        activations: KeptActivations | None = None,
    ) -> SampledBatches:
        """Choose batches as ``choose_batches`` does; they are closed at the end of the ``with``."""
        batches = choose_batches(sampler, transform, self._context, augmentation, activations)
        self._opened.append(batches)
        return batches

    @property
    def _unshuffled(self) -> BatchSettings:
        return BatchSettings(
            self._config.train.images_per_step,
            self._config.runtime.seed,
            keep_pixels="device",
            ranks=self._runtime.ranks,
        )

    def _train_sampler(self, phase: Phase) -> EpochSampler:
        settings = replace(
            self._unshuffled,
            shuffle=True,
            num_images=self._num_images_of_epoch(phase),
            balanced=self._config.data.sampler == "balanced",
            num_views=phase.augment.num_views,
        )
        return self._sampler(self._splits.train, settings)

    def _sampler(self, samples: Sequence[Sample], settings: BatchSettings) -> EpochSampler:
        return EpochSampler(samples, self._splits.class_to_idx, settings)

    def _num_images_of_epoch(self, phase: Phase) -> int:
        """Number of images in an epoch; a log line says so if some are left out."""
        num_samples, num_processes = len(self._splits.train), self._runtime.ranks.size
        length = epoch_of(phase, self._network, self._config.train, num_samples, num_processes)
        if length.num_left_out > 0:
            log.info(
                "data    %s: an epoch leaves out %d of the %d training images, different ones each time, because "
                "BatchNorm needs at least %d images in a batch (train.batch_size, bn_policy)",
                phase.name,
                length.num_left_out,
                num_samples,
                smallest_batch(self._network, phase, num_processes),
            )
        return length.num_images

    def _keep_prefix(self, phase: Phase, transform: ImageTransform, as_it_is: ImageTransform) -> KeptPrefix | None:
        """The activations before the first trainable block and the rest of the network; None if they are not cached."""
        first = phase.learning[0]
        if self._config.runtime.cache == "off":
            return None
        if first == self._network.names[0]:
            if phase.part is not None:
                log.info("cache   off: %s of the first block, %s, are trainable", phase.part.kind, first)
            return None
        # Each rank sees all batches, which are as large as its part of a batch in training, and runs the blocks on its
        # share of them; images are read once, so they need no memory on the device.
        ranks = self._runtime.ranks
        alone = replace(ONE_PROCESS, local_size=ranks.local_size)
        own = max(1, self._config.train.images_per_step // ranks.size)
        in_order = replace(self._unshuffled, batch_size=own, keep_pixels="disk", ranks=alone)
        train, val = (
            image_batches(self._sampler(samples, in_order), of_each, self._context)
            for samples, of_each in ((self._splits.train, transform), (self._splits.val, as_it_is))
        )
        self._opened += [train, val]
        num_images = len(self._splits.train) + len(self._splits.val)
        blocks = self._network.names.index(first)
        asked = choose_engine(self._config.runtime.frozen_engine, num_images, blocks, self._runtime)
        kept = keep_prefix(self._network, first, phase, train, val, self._context, asked)
        self.frozen_engine = kept.engine if kept else self.frozen_engine
        return kept

    def _batch_augmentation(self, augment: AugmentConfig) -> BatchAugmentation | None:
        """The augmentation on the device, if every epoch has new views and the device has room for images; else None.

        Repeated views are made by torchvision on every device, so that their activations can be cached.
        """
        preprocessing, runtime = self._network.preprocessing, self._runtime
        fresh = augment.changes_images and augment.num_views is None
        if not fresh or not runtime.memory.keeps or not BatchAugmentation.supports(preprocessing, runtime.device):
            return None
        return BatchAugmentation(preprocessing, augment, self._config.runtime.seed, runtime.device)
