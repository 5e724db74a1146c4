"""Fewer training images, where ``train.max_minutes`` leaves no time for one pass over all of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ftexp.data.samples import Sample, SampleTable
from ftexp.training.run_time import RunTime

log = logging.getLogger(__name__)

# The fewest images of each class that are trained on. In all there are at least as many as in the validation set.
LEAST_OF_A_CLASS = 10


def images_in_time(run_time: RunTime, train: Sequence[Sample]) -> int:
    """The number of training images that one pass over them and the validation set has time for.

    Args:
        run_time: the time of the run, after its first measurement.
        train: the training samples.
    """
    num_val, fits = run_time.num_images[1], run_time.images_of_a_pass
    least = max(num_val, LEAST_OF_A_CLASS * len({sample.label for sample in train}))
    return min(len(train), max(fits - num_val, least))


def take_images(train: Sequence[Sample], number: int, seed: int) -> SampleTable:
    """Draw training images: a few of each class at least, and beyond those the same share of every class.

    Args:
        train: the training samples.
        number: how many to draw. With one seed, a smaller draw is a part of a larger one.
        seed: of the draw.

    Returns:
        The samples in their order.
    """
    samples = SampleTable.of(train)
    labels = samples.values("label")
    sizes = Counter(labels)
    seen: Counter[str] = Counter()
    share_before: dict[int, float] = {}  # of its class; the images with the smallest shares are taken
    for place in np.random.default_rng(seed).permutation(len(train)).tolist():
        label = labels[place]
        share_before[place] = 0.0 if seen[label] < LEAST_OF_A_CLASS else seen[label] / sizes[label]
        seen[label] += 1
    return samples.take(sorted(sorted(share_before, key=share_before.__getitem__)[:number]))


def report_fewer(run_time: RunTime, num_taken: int, num_all: int) -> None:
    """Say that the run does not train on all images."""
    log.warning(
        "time    %d of %d training images are used: train.max_minutes=%g leaves too little time for all of them, with "
        "%.0f s used so far and about %.0f s that the end takes.",
        num_taken,
        num_all,
        run_time.config.train.max_minutes,
        run_time.used(),
        run_time.reserve,
    )
