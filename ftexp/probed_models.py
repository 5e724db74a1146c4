"""A head on the frozen features of several networks, cross-validated on the same folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftexp.config import Config
from ftexp.errors import UserError, WeightsError
from ftexp.frozen_features import build_frozen, read_images, refuse_undefined_metrics, run_frozen, without_values
from ftexp.machine.runtime import prepare_runtime, settle_memory_format
from ftexp.models.catalogue import locate_weights
from ftexp.models.forward_cost import ForwardCost, forward_cost
from ftexp.models.weights import Weights
from ftexp.named_models import NamedModel
from ftexp.probe.cross_validation import FoldScores, Integers, cross_validate, draw_outer_folds

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProbedModel:
    """What was found of one network.

    Attributes:
        given: its name in the list.
        folds: the scores of all folds of all repeats, the same folds for all networks.
        num_features: of what enters its last layer.
        image_size: side of the images in pixels.
        cost: of its forward pass without the last layer.
    """

    given: str
    folds: tuple[FoldScores, ...]
    num_features: int
    image_size: int
    cost: ForwardCost


@dataclass(frozen=True, slots=True)
class ProbedModels:
    """What was found of all networks.

    Attributes:
        found: of those that could be used; at least one.
        failed: name -> why it could not.
        groups: int64 [N], of the images that the folds are cut from.
    """

    found: tuple[ProbedModel, ...]
    failed: dict[str, str]
    groups: Integers


def probe_models(config: Config, models: Sequence[NamedModel], folder: Path) -> ProbedModels:
    """Read the data once, run every network over it, and cross-validate a head on each.

    Args:
        config: the settings, apart from the network.
        models: the networks.
        folder: where ``splits.csv`` and ``bad_images.csv`` are written.

    Raises:
        WeightsError: if no network can be used.
        UserError: for a mistake in the settings or the data.
    """
    runtime = prepare_runtime(config.runtime)
    failed: dict[str, str] = {}
    located: dict[str, Weights | None] = {}
    for model in models:
        try:
            located[model.given] = locate_weights(model.config.model)
        except UserError as error:
            failed[model.given] = _because(model.given, error)
    _refuse_none(located, failed)
    images = read_images(config, folder, runtime.device)
    independent = without_values(images)
    refuse_undefined_metrics(config, independent)
    draw_outer_folds(independent, config.probe.folds, config.runtime.seed)
    runtime = settle_memory_format(runtime, config.runtime, len(images.splits.train))
    probe, metric, found = config.probe, config.train.metric, []
    for model in models:
        if model.given not in located:
            continue
        try:
            network = build_frozen(model.config, located[model.given], images, runtime)
            cost = forward_cost(network.module, network.preprocessing.image_size, runtime)
            features = run_frozen(model.config, network, images, runtime)
        except UserError as error:
            failed[model.given] = _because(model.given, error)
            continue
        folds = tuple(cross_validate(features, probe.folds, probe.repeats, config.runtime.seed, [metric]))
        size = network.preprocessing.image_size
        found.append(ProbedModel(model.given, folds, features.values.shape[1], size, cost))
    _refuse_none(found, failed)
    return ProbedModels(tuple(found), failed, independent.groups.numpy())


def _because(given: str, error: UserError) -> str:
    """The reason in one line, without the ways out, which the log has."""
    log.warning("%s is left out: %s", given, error)
    return " ".join(str(error).partition("What you can do")[0].split())


def _refuse_none(left: object, failed: dict[str, str]) -> None:
    if not left:
        raise WeightsError("No network is left to compare:\n" + "\n".join(f"  {k}: {v}" for k, v in failed.items()))
