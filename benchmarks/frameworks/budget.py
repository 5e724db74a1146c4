"""The common part of the programs that ``benchmarks.accuracy`` compares: they train for given seconds, then predict.

It does not import ftexp, because the programs may run in another environment.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGAN = time.monotonic()
# How many images the trial that measures a framework's pace trains on, after its first update.
TRIAL_IMAGES = 64
# What an image costs that is only scored, in parts of one that is trained on: no gradients, but the same decoding.
SCORED = 0.5
# Seconds that writing the predictions and the end of the process take.
FOR_THE_END = 2.0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True, help="folder with train/CLASS, val/CLASS and test/CLASS")
    parser.add_argument("--seconds", type=float, required=True, help="from the start of the program to its end")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--predictions", type=Path, required=True, help="CSV: path, and the probability of each class")
    return parser.parse_args()


def seconds_left(arguments: argparse.Namespace, for_the_end: float) -> float:
    """Seconds for training, when ``for_the_end`` are kept."""
    return float(arguments.seconds) - (time.monotonic() - BEGAN) - for_the_end


def trial_updates(batch_size: int) -> int:
    """How many updates a trial makes, in batches of the size that the run will have: it changes the pace."""
    return 1 + max(1, TRIAL_IMAGES // batch_size)


@dataclass(slots=True)
class Trial:
    """Times the updates of a short run with a framework's own loop; its weights are thrown away.

    Attributes:
        updates: the moment of each update, in seconds of ``time.monotonic``.
    """

    began: float = field(default_factory=time.monotonic)
    updates: list[float] = field(default_factory=list)

    def update(self, *_: object) -> None:
        """Note an update; to be called after each, for example as a hook of all optimizers."""
        self.updates.append(time.monotonic())

    def pace(self, batch_size: int) -> Pace:
        """The pace of all updates after the first; to be called as soon as the run has ended."""
        steps = len(self.updates) - 1
        assert steps > 0, "a trial needs two updates at least"
        span = self.updates[-1] - self.updates[0]
        return Pace(span / (steps * batch_size), time.monotonic() - self.began - span)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a framework's training costs.

    Attributes:
        per_image: seconds that an image takes in training.
        besides: seconds that a run takes besides: its start, the first batch, saving.
    """

    per_image: float
    besides: float

    def epochs(self, seconds: float, train: int, val: int, test: int) -> float:
        """How many epochs of training and validation fit, one at least.

        Args:
            seconds: all that is left.
            train: number of images that an epoch trains on.
            val: number of images that are scored after each epoch.
            test: number of images that are scored at the end.
        """
        left = seconds - FOR_THE_END - self.besides - SCORED * test * self.per_image
        epochs = max(1.0, left / (self.per_image * (train + SCORED * val)))
        print(f"{epochs:.2f} epochs fit in {seconds:.1f} s, at {1 / self.per_image:.1f} images/s", flush=True)
        return epochs


def write(
    arguments: argparse.Namespace,
    paths: Sequence[str],
    classes: Sequence[str],
    probabilities: Sequence[Sequence[float]],
) -> None:
    """Write the probabilities of every test image."""
    with arguments.predictions.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *classes])
        for path, row in zip(paths, probabilities, strict=True):
            writer.writerow([Path(path).relative_to(arguments.root / "test"), *row])
