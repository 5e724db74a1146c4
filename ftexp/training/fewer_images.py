"""Fewer training images, where ``train.max_minutes`` leaves no time for one pass over all of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ftexp.data.samples import Sample
from ftexp.training.run_time import RunTime

log = logging.getLogger(__name__)

# At least so many images of each class are trained on, and as many images as validation has.
LEAST_OF_A_CLASS = 10


def images_in_time(run_time: RunTime, train: Sequence[Sample]) -> int:
    """How many training images there is time for: all, or as many as one pass over them and the validation set leaves.

    Args:
        run_time: the time of the run, after its first measurement.
        train: the training samples.
    """
    num_val, fits = run_time.num_images[1], run_time.images_of_a_pass
    least = max(num_val, LEAST_OF_A_CLASS * len({sample.label for sample in train}))
    return min(len(train), max(fits - num_val, least))


def take_images(train: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Draw training images, of each class a few at least, and beyond those the same share of its images.

    Args:
        train: the training samples.
        number: how many to draw; fewer are among those that more would be.
        seed: of the draw.

    Returns:
        The samples in their order.
    """
    sizes = Counter(sample.label for sample in train)
    seen: Counter[str] = Counter()
    share_before: dict[int, float] = {}  # of its class; the images with the smallest shares are taken
    for place in np.random.default_rng(seed).permutation(len(train)).tolist():
        label = train[place].label
        share_before[place] = 0.0 if seen[label] < LEAST_OF_A_CLASS else seen[label] / sizes[label]
        seen[label] += 1
    return [train[place] for place in sorted(sorted(share_before, key=share_before.__getitem__)[:number])]


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
