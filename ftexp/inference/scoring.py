"""From labelled images to an ``Evaluation``: what a classifier says of each, matched by the names of the classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ftexp.data.samples import Sample, sorted_naturally
from ftexp.errors import DataError, listed
from ftexp.evaluation.scores import ScoreKeeper, Scores
from ftexp.inference.calibration import Calibration
from ftexp.inference.engine import Engine, NetworkEngine
from ftexp.inference.evaluation import TOP_5, Evaluation
from ftexp.inference.given import GivenImage
from ftexp.machine.distributed import ONE_PROCESS
from ftexp.machine.transfer import to_device
from ftexp.training.progress import Progress

# An image and the name of its class.
LabelledImage = tuple[GivenImage, str]


class ScoredClassifier(Protocol):
    """The part of a ``Classifier`` that scores are made of; ``Classifier``, which calls what is here, explains it."""

    engine: Engine
    classes: tuple[str, ...]
    source: str
    run: str | None
    calibration: Calibration | None

    def prepared(self, images: object, batch_size: int) -> Iterator[list[tuple[GivenImage, Tensor | str]]]:
        """Batches of images as the engine takes them; in place of one that cannot be read, the reason."""


def labelled(samples: Sequence[Sample]) -> list[LabelledImage]:
    """Samples as images for a classifier."""
    return [(GivenImage.of(sample), sample.label) for sample in samples]


def score_images(classifier: ScoredClassifier, images: Sequence[LabelledImage], batch_size: int) -> Evaluation:
    """Classify labelled images; those that cannot be read are listed and not scored.

    Args:
        classifier: its network computes in the same way as a run's own validation does.
        images: with the names of their classes.
        batch_size: the number of images that are computed at once.

    Raises:
        DataError: if there is no image, none can be read, none has a class of the classifier, or the network's outputs
            are not finite.
    """
    given = [(image, unicodedata.normalize("NFC", label)) for image, label in images]
    classes = _all_classes(classifier.classes, {label for _, label in given})
    numbers = {unicodedata.normalize("NFC", name): number for number, name in enumerate(classes)}
    truth = iter([numbers[label] for _, label in given])
    keeper = ScoreKeeper(len(classifier.classes))
    labels: list[int] = []
    scored: list[GivenImage] = []
    unreadable: list[tuple[str | None, str]] = []
    with Progress().epoch("evaluate", len(given)) as bar:
        for batch in classifier.prepared([image for image, _ in given], batch_size):
            readable: list[Tensor] = []
            for (image, prepared), label in zip(batch, truth, strict=False):
                if isinstance(prepared, str):
                    unreadable.append((image.path, prepared))
                    continue
                readable.append(prepared)
                scored.append(image)
                labels.append(label)
            if readable:
                of_batch = _logits(classifier.engine, readable, batch_size)
                last = len(classifier.classes) - 1
                numbers_of_batch = [min(number, last) for number in labels[-len(readable) :]]
                keeper.update(of_batch, to_device(numbers_of_batch, of_batch.device))
                for _ in readable:
                    bar.advance(1, of_batch.new_zeros(()))
    if not labels:
        raise DataError(f"None of the {len(given)} images can be read; of the first: {unreadable[0][1]}.")
    scores, not_finite = keeper.compute(ONE_PROCESS)
    if not_finite:
        named = listed([scored[place].path or f"image {place + 1}" for place in not_finite], 8)
        raise DataError(f"The network's outputs are not finite for {len(not_finite)} of {len(labels)} images: {named}.")
    return Evaluation(
        classes,
        len(classifier.classes),
        tuple(scored),
        _with_extra(scores, np.array(labels), len(classes)),
        classifier.calibration,
        tuple(unreadable),
    )


def _all_classes(own: Sequence[str], of_data: set[str]) -> tuple[str, ...]:
    """The classifier's, then those that only the data has."""
    if not of_data:
        raise DataError("There is no image to evaluate.")
    known = {unicodedata.normalize("NFC", name) for name in own}
    if not known & of_data:
        raise DataError(
            f"None of the data's classes ({listed(sorted_naturally(of_data), 5)}) is among those of the classifier "
            f"({listed(own, 5)}). Classes are matched by their names: rename the folders or the labels."
        )
    return (*own, *sorted_naturally(of_data - known))


def _logits(engine: Engine, images: Sequence[Tensor], batch_size: int) -> Tensor:
    """float32 [B, C], before calibration; an exported file gives calibrated probabilities only, whose logarithms are
    the divided logits but for a constant of each image.
    """
    if isinstance(engine, NetworkEngine):
        return engine.logits(images, batch_size)
    probabilities = np.maximum(engine.probabilities(images), np.finfo(np.float32).tiny)
    return torch.from_numpy(np.log(probabilities) * np.float32(engine.temperature))


def _with_extra(scores: Scores, labels: np.ndarray, num_classes: int) -> Scores:
    """The scores with the true labels of all images, also of classes that the classifier lacks: they are wrong."""
    lacking = labels >= scores.num_classes
    if not lacking.any():
        return scores
    assert scores.logits is not None
    extra = np.full((len(labels), num_classes - scores.num_classes), -np.inf, np.float32)
    return Scores(
        labels,
        scores.predictions,
        np.where(lacking, max(scores.num_classes, TOP_5), scores.ranks),
        np.where(lacking, np.inf, scores.losses),
        num_classes,
        np.concatenate([scores.logits, extra], axis=1),
    )
