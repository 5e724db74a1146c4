"""The length of an epoch, in one place for the plan, the schedule and the loader."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftexp.config import TrainConfig
from ftexp.errors import ConfigError, DataError
from ftexp.finetune.batchnorm import takes_batch_statistics
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Span
from ftexp.models.blocks import Network

# The number of images that BatchNorm needs for a variance.
MIN_FOR_STATISTICS = 2


@dataclass(frozen=True, slots=True)
class EpochLength:
    """The length of a training epoch.

    Attributes:
        num_images: images in an epoch, over all processes.
        num_left_out: images that are left out, others in each epoch, because the last batch would be too small.
        num_batches: batches in an epoch; the last may be smaller than the others.
        num_updates: optimizer updates in an epoch; the last may accumulate fewer batches.
    """

    num_images: int
    num_left_out: int
    num_batches: int
    num_updates: int


def epoch_length(num_samples: int, batch_size: int, accumulate: int, smallest_batch: int = 1) -> EpochLength:
    """Divide an epoch into batches and updates.

    Args:
        num_samples: number of training images.
        batch_size: images per batch, over all processes.
        accumulate: batches per update.
        smallest_batch: the fewest images that a batch may have.

    Raises:
        ConfigError: if the batch size is below ``smallest_batch``.
        DataError: if there are fewer training images than ``smallest_batch``.
    """
    if batch_size < smallest_batch:
        raise ConfigError(
            f"train.batch_size={batch_size} is too small: BatchNorm in training mode computes its statistics from the "
            f"images of one batch, whatever train.accumulate is. Use at least train.batch_size={smallest_batch}, or "
            "bn_policy=eval."
        )
    if num_samples < smallest_batch:
        raise DataError(
            f"Too few training images, {num_samples}: BatchNorm in training mode computes its statistics from at least "
            f"{smallest_batch} in a batch. Add images, or use bn_policy=eval."
        )
    last = num_samples % batch_size
    left_out = last if last < smallest_batch else 0
    num_batches = math.ceil((num_samples - left_out) / batch_size)
    return EpochLength(num_samples - left_out, left_out, num_batches, math.ceil(num_batches / accumulate))


def smallest_batch(network: Network, phase: Phase, num_processes: int) -> int:
    """The fewest images that a training batch of a phase may have, over all processes.

    Args:
        network: the network.
        phase: the phase to be trained.
        num_processes: number of processes that share a batch.

    Returns:
        1; if BatchNorm computes statistics from the batch, two images and at least one for each process.
    """
    return max(MIN_FOR_STATISTICS, num_processes) if takes_batch_statistics(network, phase) else 1


def epoch_of(
    phase: Phase, network: Network, settings: TrainConfig, num_samples: int, num_processes: int
) -> EpochLength:
    """The length of each epoch of a phase.

    Args:
        phase: the phase to be trained.
        network: the network.
        settings: the batch size and the number of accumulated batches.
        num_samples: number of training images.
        num_processes: number of processes that share a batch.

    Raises:
        ConfigError: if the batch size is too small for BatchNorm's statistics.
        DataError: if there are too few training images for BatchNorm's statistics.
    """
    least = smallest_batch(network, phase, num_processes)
    return epoch_length(num_samples, settings.images_per_step, settings.accumulate, least)


def num_steps(phase: Phase, network: Network, settings: TrainConfig, num_samples: int, num_processes: int) -> int:
    """The number of batches of all epochs of a phase; the arguments are those of ``epoch_of``."""
    return phase.epochs * epoch_of(phase, network, settings, num_samples, num_processes).num_batches


def span_of(phase: Phase, network: Network, settings: TrainConfig, num_samples: int, num_processes: int) -> Span:
    """The length of a phase for its schedule; the arguments are those of ``epoch_of``."""
    length = epoch_of(phase, network, settings, num_samples, num_processes)
    return Span(phase.epochs, length.num_updates, num_samples)
