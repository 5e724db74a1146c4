"""The proof that an exported file answers as the run does: both on the whole validation set, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ftexp.data.loading.images import open_image
from ftexp.data.samples import Sample
from ftexp.inference.engine import Engine, Floats

BATCH_SIZE = 32
MAX_SHOWN = 20
# What the certificate asks for where --min-agreement does not; of int8 the user says it.
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.99}


@dataclass(frozen=True, slots=True)
class Difference:
    """An image to which the exported file gives another class.

    Attributes:
        probability: of ``label``, by the run; ``exported_probability``: of ``exported_label``, by the file.
    """

    path: str
    label: str
    probability: float
    exported_label: str
    exported_probability: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was found.

    Attributes:
        num_images: of the validation set.
        agreement: share of images with the same class on both sides.
        min_agreement: below which the file is no copy of the run.
        largest_difference, mean_difference: between the probabilities of a class for an image, over all of them.
        accuracy, exported_accuracy: share of images whose label is given, by the run and by the file.
        seconds_per_image, exported_seconds_per_image: from decoded pixels to probabilities, in batches of 32.
        differences: the images with another class.
    """

    num_images: int
    agreement: float
    min_agreement: float
    largest_difference: float
    mean_difference: float
    accuracy: float
    exported_accuracy: float
    seconds_per_image: float
    exported_seconds_per_image: float
    differences: tuple[Difference, ...]

    @property
    def holds(self) -> bool:
        """Whether the agreement is as high as was asked for."""
        return self.agreement >= self.min_agreement

    def as_dict(self) -> dict[str, Any]:
        """For ``certificate.json``."""
        return {"holds": self.holds, **asdict(self)}

    def lines(self) -> list[str]:
        """For people."""
        same = self.num_images - len(self.differences)
        lines = [
            f"agreement {100 * self.agreement:.2f} %: the same class for {same} of {self.num_images} validation images",
            f"probabilities differ by {self.largest_difference:.1e} at most, {self.mean_difference:.1e} on average",
            f"accuracy {self.accuracy:.4f} by the run, {self.exported_accuracy:.4f} by the file",
            f"seconds per image: {self.seconds_per_image:.4f} by the run, {self.exported_seconds_per_image:.4f} by the "
            "file",
        ]
        for one in self.differences[:MAX_SHOWN]:
            lines.append(
                f"  {one.path}: {one.label} {one.probability:.3f}, exported {one.exported_label} "
                f"{one.exported_probability:.3f}"
            )
        more = len(self.differences) - MAX_SHOWN
        return [*lines, f"  and {more} more"] if more > 0 else lines


def certify(
    run: Engine,
    exported: Engine,
    classes: Sequence[str],
    samples: Sequence[Sample],
    min_agreement: float,
    progress: Callable[[int], object] = lambda _: None,
) -> Certificate:
    """Ask both engines about every image.

    Args:
        run: the network itself, with the transforms of its training.
        classes: in the order of the probabilities of both.
        samples: the validation set.
        min_agreement: from 0 to 1.
        progress: is called with the number of images that are done.

    Raises:
        DataError: for an image that cannot be read.
    """
    sides = (_Side(run), _Side(exported))
    for start in range(0, len(samples), BATCH_SIZE):
        images = [open_image(sample) for sample in samples[start : start + BATCH_SIZE]]
        for side in sides:
            side.ask(images)
        progress(start + len(images))
    ours, theirs = (side.probabilities() for side in sides)
    mine, other = ours.argmax(1), theirs.argmax(1)
    truth = np.array([classes.index(sample.label) for sample in samples])
    gaps = np.abs(ours.astype(np.float64) - theirs)
    return Certificate(
        num_images=len(samples),
        agreement=float((mine == other).mean()),
        min_agreement=min_agreement,
        largest_difference=float(gaps.max()),
        mean_difference=float(gaps.mean()),
        accuracy=float((mine == truth).mean()),
        exported_accuracy=float((other == truth).mean()),
        seconds_per_image=sides[0].seconds / len(samples),
        exported_seconds_per_image=sides[1].seconds / len(samples),
        differences=tuple(
            Difference(
                samples[row].path,
                classes[mine[row]],
                float(ours[row, mine[row]]),
                classes[other[row]],
                float(theirs[row, other[row]]),
            )
            for row in map(int, np.flatnonzero(mine != other))
        ),
    )


class _Side:
    """One of the two, its answers and its time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rows: list[Floats] = []
        self.seconds = 0.0

    def ask(self, images: Sequence[Image.Image]) -> None:
        begun = time.perf_counter()
        self._rows.append(self._engine.probabilities([self._engine.prepare(image) for image in images]))
        self.seconds += time.perf_counter() - begun

    def probabilities(self) -> npt.NDArray[np.float32]:
        return np.concatenate(self._rows)
