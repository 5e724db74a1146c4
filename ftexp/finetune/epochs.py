"""How long an epoch is. The plan, the schedule and the loader all ask here, so that they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftexp.config import TrainConfig
from ftexp.errors import ConfigError, DataError
from ftexp.finetune.batchnorm import takes_batch_statistics
from ftexp.finetune.phases import Phase
from ftexp.finetune.schedules import Span
from ftexp.models.blocks import Network

# Images from which BatchNorm can take a variance.
MIN_FOR_STATISTICS = 2


@dataclass(frozen=True, slots=True)
class EpochLength:
    """An epoch of training.

    Attributes:
        num_images: that it shows, over all processes; the others are left out, which these are changes by epoch.
        num_left_out: the last batch, where it is too small to be trained on.
        num_batches: the last may be smaller than the others.
        num_updates: of the optimizer; the last may be by fewer batches.
    """

    num_images: int
    num_left_out: int
    num_batches: int
    num_updates: int


def epoch_length(num_samples: int, batch_size: int, accumulate: int, smallest_batch: int = 1) -> EpochLength:
    """Cut an epoch into batches and updates.

    Args:
        num_samples: training images.
        batch_size: over all processes.
        accumulate: batches per update.
        smallest_batch: images that a batch needs at least.

    Raises:
        ConfigError: if the batches are smaller than that; DataError: if there are not even that many images.
    """
    if batch_size < smallest_batch:
        raise ConfigError(
            f"train.batch_size={batch_size} is too small: BatchNorm in training takes its statistics from the images "
            f"of a batch, whatever train.accumulate is. Take at least train.batch_size={smallest_batch}, or "
            "bn_policy=eval."
        )
    if num_samples < smallest_batch:
        raise DataError(
            f"Too few training images, {num_samples}: BatchNorm in training takes its statistics from at least "
            f"{smallest_batch} in a batch. Add images, or take bn_policy=eval."
        )
    last = num_samples % batch_size
    left_out = last if last < smallest_batch else 0
    num_batches = math.ceil((num_samples - left_out) / batch_size)
    return EpochLength(num_samples - left_out, left_out, num_batches, math.ceil(num_batches / accumulate))


def smallest_batch(network: Network, phase: Phase, num_processes: int) -> int:
    """Images that a training batch needs: two, and one for each process, where BatchNorm takes statistics from it."""
    return max(MIN_FOR_STATISTICS, num_processes) if takes_batch_statistics(network, phase) else 1


def epoch_of(
    phase: Phase, network: Network, settings: TrainConfig, num_samples: int, num_processes: int
) -> EpochLength:
    """The epochs of a phase.

    Args:
        num_samples: training images.

    Raises:
        ConfigError, DataError: if a batch, or all there is, is too small for BatchNorm's statistics.
    """
    least = smallest_batch(network, phase, num_processes)
    return epoch_length(num_samples, settings.images_per_step, settings.accumulate, least)


def span_of(phase: Phase, network: Network, settings: TrainConfig, num_samples: int, num_processes: int) -> Span:
    """The whole of a phase, as its schedule sees it; arguments as ``epoch_of``'s."""
    length = epoch_of(phase, network, settings, num_samples, num_processes)
    return Span(phase.epochs, length.num_updates, num_samples)
