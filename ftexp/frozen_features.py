"""One pass of the frozen pretrained network over the training and validation images, for what is told before training.

The test split is not opened. The activations are cached like those of a run, so that a second pass, or a run of the
head on the same images, computes nothing.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ftexp.audit.audit import screen_and_look
from ftexp.audit.duplicates import tie_duplicates
from ftexp.audit.features import PretrainedFeatures
from ftexp.config import Config
from ftexp.data.digests import ContentDigests
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import Splits, assign_splits, build_splits, write_splits
from ftexp.machine.generators import seed_generators
from ftexp.machine.runtime import Runtime, prepare_runtime
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_network, locate_weights
from ftexp.prepare import plan
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


def compute_features(config: Config, folder: Path) -> tuple[Features, Splits]:
    """Read the data, find copies, and run the frozen network over train and val.

    Args:
        config: the settings of a run; its stage does not matter, because the whole backbone is frozen.
        folder: where ``splits.csv`` and ``bad_images.csv`` are written.

    Returns:
        The features, and the splits; nobody has opened their test split.

    Raises:
        UserError: for a mistake in the settings or the data.
    """
    runtime = prepare_runtime(config.runtime)
    weights = locate_weights(config.model)
    splits, ties = _read(config, folder, runtime.device)
    seed_generators(config.runtime.seed)
    network = build_network(config.model, weights, splits.classes, config.data.image_size)
    network.preprocessing = replace(network.preprocessing, white_level=config.data.white_level)
    values = _run(config, network, splits, runtime)
    samples = (*splits.train, *splits.val)
    labels = torch.tensor([splits.class_to_idx[sample.label] for sample in samples])
    features = Features(values, labels, number_groups(samples, ties), samples, splits.classes)
    log.info(
        "pass    %s: %d features of %d images; groups and copies of one image make it %d independent ones. Test (%d "
        "images) is not opened.",
        network.name,
        values.shape[1],
        len(samples),
        features.num_groups,
        splits.test.num_samples,
    )
    return features, splits


def _read(config: Config, folder: Path, device: torch.device) -> tuple[Splits, dict[str, str]]:
    """The splits, and the copies of images that stay together."""
    samples, digests = read_samples(config.data), ContentDigests()
    extractor = PretrainedFeatures(device) if config.audit.features else None
    workers = config.runtime.workers
    samples, look = screen_and_look(samples, config.data, config.audit, folder, extractor, workers, digests)
    ties = tie_duplicates(samples, look.of(samples))
    assigned = assign_splits(samples, config.data, ties if config.data.tie_duplicates else None)
    splits = build_splits(assigned, digests)
    write_splits(folder / "splits.csv", splits)
    return splits, ties


@torch.no_grad()
def _run(config: Config, network: Network, splits: Splits, runtime: Runtime) -> Tensor:
    """Features float32 [N, D] of train, then val; the last layer of the head is replaced."""
    phase = replace(plan(config)[0], learning=(HEAD,), part=None, change=None)
    for path in network.heads:
        network.module.set_submodule(path, _NoLayer())
    runtime.place(network.module.eval())
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
