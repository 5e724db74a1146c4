"""One pass of the frozen pretrained network over the training and validation images, for what is told before training.

The test split is not opened. The activations are cached like those of a run, so that a second pass, or a run of the
head on the same images, computes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ftexp.audit.audit import screen_and_look
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.fingerprint_table import FingerprintsByPath
from ftexp.audit.ties import split_tied, tie_duplicates
from ftexp.config import Config
from ftexp.data.digests import ContentDigests
from ftexp.data.samples import Sample
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import Splits, assign_splits, build_splits, write_splits
from ftexp.machine.generators import seed_generators
from ftexp.machine.runtime import Runtime, prepare_runtime, settle_memory_format
from ftexp.metric_names import check_defined, recorded
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.models.weights import Weights
from ftexp.preparation.prepare import plan
from ftexp.probe.features import Features, number_groups
from ftexp.training.inputs.batches import Batches, Forward
from ftexp.training.inputs.input_source import InputSource

log = logging.getLogger(__name__)

# With train.batch_size=auto: the network only runs forward, for which any size of this order will do.
BATCH_SIZE = 32


class _NoLayer(nn.Module):
    """In the place of the last layer, it returns what enters. Its buffer makes it a module before which we can cut."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("none", torch.zeros(1), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a data set.

    Attributes:
        splits: nobody has opened their test split.
        ties: path -> name of the set of copies that an image belongs to.
        samples: the images of all splits, each with its fingerprint in ``look``.
    """

    splits: Splits
    ties: dict[str, str]
    samples: Sequence[Sample]
    look: FingerprintsByPath


def compute_features(
    config: Config, folder: Path, check: Callable[[Features], None] | None = None
) -> tuple[Features, Splits]:
    """Read the data, find copies, and run the frozen network over train and val.

    Args:
        config: the settings of a run; its stage does not matter, because the whole backbone is frozen.
        folder: where ``splits.csv`` and ``bad_images.csv`` are written.
        check: refuses images before the network runs over them; it gets what ``without_values`` gives.

    Returns:
        The features, and the splits; nobody has opened their test split.

    Raises:
        UserError: for a mistake in the settings or the data.
    """
    runtime = prepare_runtime(config.runtime)
    weights = locate_weights(config.model)
    images = read_images(config, folder, runtime.device)
    if check is not None:
        check(without_values(images))
    runtime = settle_memory_format(runtime, config.runtime, len(images.splits.train))
    network = build_frozen(config, weights, images, runtime)
    return run_frozen(config, network, images, runtime), images.splits


def without_values(images: Images) -> Features:
    """The images of train and val as features [N, 0]: labels and groups, of which folds are cut, but no values."""
    splits = images.splits
    samples = (*splits.train, *splits.val)
    labels = torch.tensor([splits.class_to_idx[sample.label] for sample in samples])
    return Features(torch.empty(len(samples), 0), labels, number_groups(samples, images.ties), samples, splits.classes)


def build_frozen(config: Config, weights: Weights | None, images: Images, runtime: Runtime) -> Network:
    """The network on its device in eval mode; it returns what enters the last layer.

    Args:
        config: the settings of a run.
        weights: the result of ``locate_weights``.
        images: the data.
        runtime: the device.

    Raises:
        UserError: if the weights do not fit the network, or the network not the images.
    """
    seed_generators(config.runtime.seed)
    network = build_network(config.model, weights, images.splits.classes, config.data.image_size)
    network.preprocessing = replace(network.preprocessing, white_level=config.data.white_level)
    for path in network.heads:
        network.module.set_submodule(path, _NoLayer())
    runtime.place(network.module.eval())
    return network


def run_frozen(config: Config, network: Network, images: Images, runtime: Runtime) -> Features:
    """Run a network over train and val, or read from the cache what it makes of them.

    Args:
        config: the settings of a run.
        network: what ``build_frozen`` gave.
        images: the data.
        runtime: the device.
    """
    splits = images.splits
    values = _run(config, network, splits, runtime)
    features = replace(without_values(images), values=values)
    log.info(
        "pass    %s: %d features of %d images; groups and copies of one image make it %d independent ones. Test (%d "
        "images) is not opened.",
        network.name,
        values.shape[1],
        len(values),
        features.num_groups,
        splits.test.num_samples,
    )
    return features


def refuse_undefined_metrics(config: Config, features: Features) -> None:
    """Refuse metrics that are not defined for these images; warn if folds mix past and future.

    Raises:
        UserError: if a requested metric is not defined.
    """
    check_defined(config.asked_metrics, features.classes, [sample.label for sample in features.samples])
    if config.data.split == "time":
        log.warning("Folds ignore the time of images, so the future helps to judge the past (data.split=time).")


def scored_metrics(config: Config, features: Features) -> list[str]:
    """The metrics that heads on the features are scored by; refuses and warns as ``refuse_undefined_metrics``."""
    refuse_undefined_metrics(config, features)
    return recorded(config.asked_metrics, len(features.classes))


def run_on_unlabelled(
    config: Config, network: Network, images: Images, unlabelled: Sequence[Sample], runtime: Runtime
) -> Tensor:
    """Features float32 [M, D] of other images, whose labels are not used; call it after ``run_frozen``.

    Args:
        config: the settings of a run.
        network: what ``build_frozen`` gave.
        images: the data; val is read from the cache again.
        unlabelled: M images.
        runtime: the device.
    """
    other = replace(images.splits, train=list(unlabelled))
    return _run(config, network, other, runtime)[: len(unlabelled)]


def read_images(config: Config, folder: Path, device: torch.device) -> Images:
    """Read and split the data, and find copies.

    Args:
        config: the settings of a run.
        folder: where ``splits.csv`` and ``bad_images.csv`` are written.
        device: for the features that near duplicates are found by.

    Raises:
        UserError: for a mistake in the settings or the data.
    """
    samples, digests = read_samples(config.data), ContentDigests()
    extractor = PretrainedFeatures(device, config.audit.aligns) if config.audit.features else None
    workers = config.runtime.workers
    samples, look = screen_and_look(samples, config.data, config.audit, folder, extractor, workers, digests)
    if config.data.tie_duplicates:  # as in a run, so that its test images are the same
        tied = split_tied(samples, config.audit, look, partial(assign_splits, samples, config.data))
        assigned, ties = tied.samples, tied.sets
    else:
        assigned, ties = assign_splits(samples, config.data), tie_duplicates(samples, look.of(samples))
    splits = build_splits(assigned, digests)
    write_splits(folder / "splits.csv", splits)
    return Images(splits, ties, samples, look)


@torch.no_grad()
def _run(config: Config, network: Network, splits: Splits, runtime: Runtime) -> Tensor:
    """Features float32 [N, D] of train, then val."""
    phase = replace(plan(config)[0], learning=(HEAD,), part=None, change=None)
    if config.train.batch_size == "auto":
        config = replace(config, train=replace(config.train, batch_size=BATCH_SIZE))
    with InputSource(config, network, splits, runtime) as source:
        forward, train, val = source.in_order(phase)
        return torch.cat([_outputs(forward, batches, runtime) for batches in (train, val)])


def _outputs(forward: Forward, batches: Batches, runtime: Runtime) -> Tensor:
    parts = []
    for inputs, _ in batches.epoch(0):
        with runtime.autocast():
            parts.append(forward(inputs).flatten(1).float().cpu())
    return torch.cat(parts)
