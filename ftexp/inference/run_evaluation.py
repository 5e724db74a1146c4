"""Runs evaluated as ``python -m ftexp.evaluate`` does it: with their own engine, on their own images or on others."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ftexp.config import DataConfig, RuntimeConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.places import Place
from ftexp.data.samples import Sample
from ftexp.errors import ConfigError, DataError, DeviceError
from ftexp.evaluation.scores import Scores
from ftexp.files.run_files import IDENTITY
from ftexp.fine_tuning import compose
from ftexp.inference.classifier import Classifier
from ftexp.inference.engine import NetworkEngine
from ftexp.inference.evaluate import batch_size_of, evaluate_samples, evaluate_split, run_of
from ftexp.inference.evaluation import Evaluation
from ftexp.inference.given import GivenImage
from ftexp.inference.load import LATEST, find_checkpoint, load, load_checkpoint_file
from ftexp.inference.reproduction import Reproduction, engine_facts, reproduction
from ftexp.inference.run_data import RunData, other_samples, settings_of
from ftexp.machine.runtime import Runtime, inference_runtime, prepare_runtime, settle_memory_format
from ftexp.run_identity import RunIdentity

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunEvaluation:
    """One run on some images.

    Attributes:
        name: as it was given.
        run: None where it is not known.
        reproduced: None where the images are not the run's own validation split.
        engine: what computed it.
    """

    name: str
    classifier: Classifier
    run: RunData | None
    evaluation: Evaluation
    engine: dict[str, Any]
    reproduced: Reproduction | None = None

    def facts(self, what: str) -> dict[str, object]:
        """What leads ``evaluation.json``.

        Args:
            what: the images are.
        """
        reproduced = {**asdict(self.reproduced), "exact": self.reproduced.exact} if self.reproduced else None
        source = {"checkpoint": self.classifier.source, "run": self.classifier.run}
        return {**source, "data": what, "engine": self.engine, "logged": reproduced}


def open_run(name: str, device: str | None, *, trust: bool = False) -> tuple[Classifier, RunData | None]:
    """Load a classifier with the engine of the run that trained it, as far as that is here.

    Args:
        name: as of ``ftexp.load``.
        device: None: that of the run, if it is there.
        trust: as of ``ftexp.load``.

    Raises:
        UserError: when there is no such run, it did not finish, or the device is not there.
    """
    if not (Path(name).expanduser().is_dir() or name == LATEST or name.endswith(".pt")):
        classifier = load(name, device=device or "auto", trust=trust)
        return classifier, run_of(classifier)
    checkpoint = find_checkpoint(name)
    folder = checkpoint.parent.parent
    run = RunData.of(folder) if (folder / IDENTITY).exists() else None
    engine = _runtime(run.identity, device) if run else inference_runtime(device or "auto")
    return load_checkpoint_file(checkpoint, engine), run


def evaluate_on_split(
    name: str, split: str, changes: Sequence[str], device: str | None, batch_size: int | None, *, trust: bool = False
) -> RunEvaluation:
    """Evaluate a run on a split of its own.

    Args:
        name: of the run, as of ``ftexp.load``.
        changes: where its images are by now, such as ``data.root=FOLDER``.
        device, batch_size: None: those of the run.
        trust: as of ``ftexp.load``.
    """
    classifier, run = open_run(name, device, trust=trust)
    if run is None:
        raise ConfigError(
            f"{name} does not say which run trained it, or the run's folder is not here, so it has no images of its "
            "own. Give labelled images: --data data=imagefolder data.root=FOLDER."
        )
    run = RunData.of(run.folder, changes)
    evaluation = evaluate_split(classifier, run, split, batch_size)
    engine = _facts(classifier, run, batch_size)
    own_network = isinstance(classifier.engine, NetworkEngine)  # how far an export agrees is in its certificate
    same = split == "val" and own_network
    reproduced = reproduction(evaluation, run.folder, run.identity, engine) if same else None
    return RunEvaluation(name, classifier, run, evaluation, engine, reproduced)


def evaluate_on_data(
    name: str, samples: Sequence[Sample], device: str | None, batch_size: int | None, *, trust: bool = False
) -> RunEvaluation:
    """Evaluate a run on other images; arguments as of ``evaluate_on_split``."""
    classifier, run = open_run(name, device, trust=trust)
    evaluation = evaluate_samples(classifier, run, samples, batch_size)
    return RunEvaluation(name, classifier, run, evaluation, _facts(classifier, run, batch_size))


def other_data(settings: Sequence[str], split: str | None) -> tuple[DataConfig, Sequence[Sample]]:
    """The data that settings such as ``data=imagefolder data.root=FOLDER`` name.

    Raises:
        UserError: when a setting is wrong, or there is no such data.
    """
    config = compose(*settings).data
    return config, other_samples(config, split)


def aligned(evaluations: Sequence[Evaluation]) -> list[Scores]:
    """The scores of several classifiers with the same images in the same order and the same numbers of classes.

    Raises:
        DataError: when the images are not the same.
    """
    classes = list(dict.fromkeys(name for one in evaluations for name in one.classes))
    keys = [_content(one) for one in evaluations]
    return [_renumbered(one, _order(keys[0], of_one), classes) for one, of_one in zip(evaluations, keys, strict=True)]


def _content(evaluation: Evaluation) -> list[tuple[object, str]]:
    """Of each image its content and its label."""
    digests = ContentDigests()

    def content(image: GivenImage) -> object:
        if isinstance(image.content, np.ndarray):
            return image.content.tobytes()
        assert isinstance(image.content, Place)
        return digests.of_place(str(image.path), image.content)

    names = (evaluation.classes[label] for label in evaluation.labels)
    return [(content(image), name) for image, name in zip(evaluation.images, names, strict=True)]


def _order(wanted: Sequence[object], there: Sequence[object]) -> list[int]:
    places: dict[object, list[int]] = defaultdict(list)
    for place, key in enumerate(there):
        places[key].append(place)
    order = [places[key].pop(0) if places[key] else -1 for key in wanted]
    missing = order.count(-1)
    if missing or len(there) != len(wanted):
        raise DataError(
            f"The runs were validated on different images: {missing} of the {len(wanted)} of the first are not among "
            f"the {len(there)} of another. Compare them on images that none was trained on: --data data=imagefolder "
            "data.root=FOLDER."
        )
    return order


def _renumbered(evaluation: Evaluation, order: list[int], classes: list[str]) -> Scores:
    scores = evaluation.scores.take(np.array(order))
    numbers = np.array([classes.index(name) for name in evaluation.classes])
    logits = None
    if scores.logits is not None:
        logits = np.full((len(order), len(classes)), -np.inf, np.float32)
        logits[:, numbers] = scores.logits
    return Scores(
        numbers[scores.labels], numbers[scores.predictions], scores.ranks, scores.losses, len(classes), logits
    )


def _runtime(identity: RunIdentity, device: str | None) -> Runtime:
    """That of a run, on its own kind of device where that is here and no other was asked for, and there in its own
    memory format, so that its scores can be reproduced.
    """
    settings = settings_of(RuntimeConfig, identity.config["runtime"])
    runtime = _on_a_device(settings, identity, device)
    return settle_memory_format(runtime, settings, 0, identity.memory_format_on(runtime.device.type))


def _on_a_device(settings: RuntimeConfig, identity: RunIdentity, device: str | None) -> Runtime:
    own = (identity.engine or {}).get("device")
    if device is not None:
        only_cuda = settings.precision == "fp16" and not device.startswith("cuda")
        return prepare_runtime(replace(settings, device=device, precision="fp32" if only_cuda else settings.precision))
    if own is None or own == settings.device.partition(":")[0]:
        own = settings.device
    reason: DeviceError | None = None
    for name in dict.fromkeys((own, own.partition(":")[0])):  # a sweep's trial on cuda:2 needs no third GPU here
        try:
            return prepare_runtime(replace(settings, device=name))
        except DeviceError as error:
            reason = reason or error
    log.warning("The run's device is not available: %s Evaluating on this machine's default device, in fp32.", reason)
    return prepare_runtime(replace(settings, device="auto", precision="fp32"))


def _facts(classifier: Classifier, run: RunData | None, batch_size: int | None) -> dict[str, Any]:
    size = batch_size_of(run, batch_size)
    if isinstance(classifier.engine, NetworkEngine):
        return engine_facts(classifier.engine.runtime, size)
    return {"device": classifier.engine.device, "batch_size": size}
