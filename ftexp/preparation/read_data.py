"""Reads, splits and audits the data of a run, and records a run that the audit refused."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ftexp.audit.audit import audit_splits, screen_and_look
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.ties import split_tied, tie_duplicates
from ftexp.config import Config, TrackingConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.loading.screening import screen_images
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import Splits, assign_splits, build_splits, write_splits
from ftexp.data_identity import DataIdentity
from ftexp.errors import LeakError
from ftexp.evaluation.intervals import warn_if_too_small
from ftexp.files.run_files import LEAKS_PICTURE
from ftexp.run_identity import RunIdentity
from ftexp.run_images import as_they_were
from ftexp.tracking.factory import make_tracker
from ftexp.tracking.params import flatten
from ftexp.tracking.tracker import Tracker

log = logging.getLogger(__name__)


def read_data(
    config: Config,
    folder: Path,
    device: torch.device,
    begun: RunIdentity | None = None,
    *,
    copies_up_to: float = 0,
    align_until: float = math.inf,
) -> Splits:
    """List the samples, read every image once, split them into train, val and test, and audit the splits.

    Args:
        config: the configuration of the run.
        folder: where ``splits.csv`` and the tables of the audit are written.
        device: the device that computes the features for the audit.
        begun: the identity of the run to resume, whose images must be the same and keep their splits.
        copies_up_to: copies are searched for among train and val if these are at most so many, and the audit looks at
            the images.
        align_until: by ``time.monotonic``, when the audit aligns no further pictures.

    Raises:
        DataError: when images cannot be read, or are not those that the resumed run began with.
        LeakError: when the audit finds that splits share images or groups.
    """
    workers = config.runtime.workers
    samples, look, tied, digests = read_samples(config.data), None, None, ContentDigests()
    if config.audit.on_leak == "off" and not config.data.tie_duplicates:
        samples = screen_images(samples, config.data, folder, workers)
    else:
        extractor = PretrainedFeatures(device, config.audit.aligns) if config.audit.features else None
        samples, look = screen_and_look(samples, config.data, config.audit, folder, extractor, workers, digests)
    if look is not None and config.data.tie_duplicates and begun is None:  # a resumed run keeps its splits
        tied = split_tied(samples, config.audit, look, partial(assign_splits, samples, config.data))
        assigned = tied.samples
    else:
        assigned = assign_splits(samples, config.data)
    if begun is not None:
        assigned = as_they_were(assigned, begun.data.images, digests)
    splits = build_splits(assigned, digests)
    if begun is not None:
        begun.data.check(DataIdentity.of(splits))  # before any file of the run is replaced
    write_splits(folder / "splits.csv", splits)
    log.info(
        "data    %s: %d images of %d classes; train %d, val %d, test %d (held out)",
        config.data.source,
        len(samples),
        len(splits.classes),
        len(splits.train),
        len(splits.val),
        splits.test.num_samples,
    )
    warn_if_too_small(len(splits.val))
    if look is not None and config.audit.on_leak != "off":
        known, ties = None if tied is None else tied.copies, config.data.tie_duplicates
        audit_splits(assigned, config.audit, folder, look, align_until, tied=ties, copies=known)
    if look is not None and len(splits.train) + len(splits.val) <= copies_up_to:
        seen = (*splits.train, *splits.val)
        splits = replace(splits, copies=tie_duplicates(seen, look.of(seen)) if tied is None else tied.sets)
    return splits


def read_recorded(
    config: Config,
    folder: Path,
    device: torch.device,
    begun: RunIdentity | None,
    *,
    name: str,
    copies_up_to: float,
    align_until: float,
) -> Splits:
    """As ``read_data``; a run that the audit refuses is recorded in the tracking store under its name."""
    try:
        return read_data(config, folder, device, begun, copies_up_to=copies_up_to, align_until=align_until)
    except LeakError:
        record_refusal(config, folder, name)
        raise


def record_refusal(config: Config, folder: Path, name: str) -> None:
    """Record a run that the audit refused in the tracking store, with the tables that show the reason."""
    tracker = make_tracker(config.tracking, name)
    tracker.log_params(flatten(config))
    tracker.set_tags({"folder": str(folder), "refused": "leak"})
    log_data_tables(tracker, folder, config.tracking)
    tracker.close("FAILED")


def log_data_tables(tracker: Tracker, folder: Path, config: TrackingConfig) -> None:
    """Log what reading, splitting and auditing the data wrote; pictures only with ``tracking.log_images``."""
    for name in ("splits.csv", "leaks.csv", "bad_images.csv", *([LEAKS_PICTURE] if config.log_images else [])):
        if (folder / name).exists():
            tracker.log_artifact(folder / name)
