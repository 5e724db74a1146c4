"""The images of a folder without labels that can be picked, and their features."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from ftexp.audit.audit import look
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.ties import tie_duplicates
from ftexp.config import Config
from ftexp.data.samples import Sample
from ftexp.data.sources.named_images import named_images
from ftexp.data.sources.parts import Parts
from ftexp.errors import DataError
from ftexp.frozen_features import Images, build_frozen, read_images, run_frozen, run_on_unlabelled
from ftexp.machine.runtime import prepare_runtime, settle_memory_format
from ftexp.models.catalogue import locate_weights
from ftexp.probe.features import Features
from ftexp.report.tables import write_rows

log = logging.getLogger(__name__)

UNREADABLE = "unreadable.csv"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Images that can be picked: none is a copy of a labelled image or of another one of them.

    Attributes:
        samples: M images; their label is a placeholder.
        values: float32 [M, D], what enters the last layer of the head.
    """

    samples: tuple[Sample, ...]
    values: Tensor


def compute_with_unlabelled(config: Config, folder: Path) -> tuple[Features, Candidates]:
    """Run the frozen network over train and val, and over the images of ``probe.unlabelled`` that can be picked.

    Args:
        config: the settings of a run; its stage does not matter.
        folder: where the tables are written.

    Raises:
        UserError: for a mistake in the settings or the labelled data, or if no image can be picked.
    """
    runtime = prepare_runtime(config.runtime)
    weights = locate_weights(config.model)
    images = read_images(config, folder, runtime.device)
    runtime = settle_memory_format(runtime, config.runtime, len(images.splits.train))
    samples = _read_unlabelled(config, images, folder, runtime.device)
    network = build_frozen(config, weights, images, runtime)
    features = run_frozen(config, network, images, runtime)
    return features, Candidates(samples, run_on_unlabelled(config, network, images, samples, runtime))


def _read_unlabelled(config: Config, images: Images, folder: Path, device: torch.device) -> tuple[Sample, ...]:
    """List the images, leave out those that cannot be read or are copies, and say how many these are."""
    root = config.probe.unlabelled or ""
    placeholder, level = images.splits.classes[0], config.data.white_level
    listed = [Sample(path, placeholder, white_level=level) for path, _ in named_images(root, Parts())]
    extractor = PretrainedFeatures(device, config.audit.aligns) if config.audit.features else None
    seen = look(listed, config.data, config.audit, extractor, config.runtime.workers, images.splits.digests)
    bad = [(listed[number], reason) for number, reason in seen.bad.items()]
    good = [sample for number, sample in enumerate(listed) if number not in seen.bad]
    if bad:
        write_rows(folder / UNREADABLE, [{"path": sample.path, "reason": reason} for sample, reason in bad])
        log.warning(
            "%d of %d files in %s cannot be read as images, for example %s: %s. They are left out and listed in %s.",
            len(bad),
            len(listed),
            root,
            bad[0][0].path,
            bad[0][1],
            folder / UNREADABLE,
        )
    new, num_known = _without_copies(images, good, seen.prints)
    num_repeated = len(good) - num_known - len(new)
    log.info(
        "images  %d in %s: %d cannot be read, %d are copies of labelled images, %d are repeats of another new image; "
        "%d can be picked",
        len(listed),
        root,
        len(bad),
        num_known,
        num_repeated,
        len(new),
    )
    if not new:
        raise DataError(f"No image in {root} can be picked: all are copies of labelled images, or cannot be read.")
    return tuple(new)


def _without_copies(images: Images, samples: Sequence[Sample], prints: Fingerprints) -> tuple[list[Sample], int]:
    """The samples that are no copy of a labelled image, the first of each set of copies; how many are of labelled."""
    ties = tie_duplicates([*images.samples, *samples], Fingerprints(chain(images.look.of(images.samples), prints)))
    known = {ties.get(sample.path) for sample in images.samples} - {None}
    seen, new, num_known = set(known), list[Sample](), 0
    for sample in samples:
        tie = ties.get(sample.path)
        if tie is None or tie not in seen:
            new.append(sample)
            seen |= {tie} - {None}
        num_known += tie in known
    return new, num_known
