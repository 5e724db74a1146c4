"""``Classifier.evaluate``: from what a caller calls data to the labelled images, and to their scores."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ftexp.config import Config, DataConfig, ImageFolderConfig
from ftexp.data.samples import Sample
from ftexp.data.sources.named_images import named_image
from ftexp.data.sources.parts import Parts
from ftexp.errors import ConfigError, DataError
from ftexp.files.run_files import IDENTITY
from ftexp.inference.evaluation import Evaluation
from ftexp.inference.given import GivenImage
from ftexp.inference.run_data import EVALUATED, RunData, other_samples
from ftexp.inference.scoring import LabelledImage, ScoredClassifier, labelled, score_images

log = logging.getLogger(__name__)

# Where the run is not known.
BATCH_SIZE = 32


def evaluate(classifier: ScoredClassifier, data: object, split: str | None, batch_size: int | None) -> Evaluation:
    """Score a classifier; arguments and errors as of ``Classifier.evaluate``."""
    run = run_of(classifier)
    if data is None:
        if run is None:
            raise ConfigError(f"{classifier.source} does not say which run trained it, so it has no images of its own.")
        return evaluate_split(classifier, run, split or "val", batch_size)
    config = _data_config(data)
    if config is not None:
        return evaluate_samples(classifier, run, other_samples(config, split), batch_size)
    if split is not None:
        raise ConfigError(f"split={split} chooses from a run or a data set, and pairs of images and labels have none.")
    return score_images(classifier, _pairs(data), batch_size_of(run, batch_size))


def evaluate_split(classifier: ScoredClassifier, run: RunData, split: str, batch_size: int | None) -> Evaluation:
    """Score a classifier on a split of the run that trained it; opening its test split is counted.

    Raises:
        DataError: when images are missing or cannot be read, or the test split has been used up.
    """
    if split not in EVALUATED:
        raise ConfigError(f"split={split}: a run is evaluated on {' or '.join(EVALUATED)}.")
    samples = run.samples(split)
    with run.counting_test() if split == "test" else nullcontext() as use:
        evaluation = score_images(classifier, labelled(samples), batch_size_of(run, batch_size))
        if evaluation.unreadable:
            path, why = evaluation.unreadable[0]
            raise DataError(f"{len(evaluation.unreadable)} {split} images of the run cannot be read: {path}: {why}.")
        if use is not None:
            use.record(evaluation.scores.accuracy)
    return evaluation


def evaluate_samples(
    classifier: ScoredClassifier, run: RunData | None, samples: Sequence[Sample], batch_size: int | None
) -> Evaluation:
    """Score a classifier on other images; a warning says how many its run has seen, and its test images are counted.

    Raises:
        DataError: when none of the images can be scored, or the run's test split, which is among them, has been used
            up.
    """
    seen = run.seen(samples) if run is not None else {}
    for split in ("train", "val"):
        if seen.get(split):
            how = "trained on" if split == "train" else "chosen by"
            log.warning(
                "%d of the %d images are %s images of the run: it was %s them, so its scores are too good.",
                *(seen[split], len(samples), {"train": "training", "val": "validation"}[split], how),
            )
    with run.counting_test() if run is not None and seen.get("test") else nullcontext() as use:
        evaluation = score_images(classifier, labelled(samples), batch_size_of(run, batch_size))
        if use is not None:
            use.record(evaluation.scores.accuracy)
    return evaluation


def run_of(classifier: ScoredClassifier) -> RunData | None:
    """The images of the run that trained a classifier; None where the run is not known, or not here."""
    if classifier.run is None or not (Path(classifier.run) / IDENTITY).exists():
        return None
    return RunData.of(Path(classifier.run))


def batch_size_of(run: RunData | None, given: int | None) -> int:
    """The number of images that are computed at once: as given, else as many as the run computed."""
    if given is not None and given < 1:
        raise ConfigError(f"batch_size={given}: it has to be at least 1.")
    return given or (run.identity.batch_size if run is not None else 0) or BATCH_SIZE


def _data_config(data: object) -> DataConfig | None:
    if isinstance(data, Config):
        return data.data
    if isinstance(data, DataConfig):
        return data
    if isinstance(data, (str, os.PathLike)):
        return ImageFolderConfig(source="imagefolder", root=os.path.expanduser(os.fspath(data)))
    return None


def _pairs(data: object) -> list[LabelledImage]:
    """Images with the names of their classes, as a caller has them.

    Raises:
        DataError: when they are something else.
    """
    advice = (
        "Labelled images are a folder with one folder per class, ftexp.compose('data=…'), or an iterable of pairs "
        "(image, name of its class)."
    )
    if not isinstance(data, Iterable):
        raise DataError(f"{type(data).__name__} is no labelled data. {advice}")
    pairs, parts = [], Parts()
    for one in data:
        pair: Any = one
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], str):
            raise DataError(f"{str(one)[:80]!r} is no pair of an image and the name of its class. {advice}")
        image = pair[0]
        if isinstance(image, (str, os.PathLike)):
            path, place = named_image(os.path.expanduser(os.fspath(image)), parts)
            pairs.append((GivenImage(place, path), pair[1]))
        else:
            pairs.append((GivenImage(image), pair[1]))
    return pairs
