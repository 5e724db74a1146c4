"""``ftexp.find_leaks``: the audit of splits that somebody else has made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch

from ftexp.audit.aligner import Effort
from ftexp.audit.audit import find_all
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.features import PretrainedFeatures
from ftexp.audit.findings import Finding
from ftexp.audit.fingerprints import Seen, look_at_images
from ftexp.data.samples import SPLITS, Sample
from ftexp.errors import DataError, listed
from ftexp.machine.cores import available_cores

# None, NaN, and what pandas has for missing values, as text.
MISSING = ("None", "nan", "<NA>", "NaT")


def find_leaks(
    paths: Sequence[str | os.PathLike[str]],
    labels: Sequence[object],
    splits: Sequence[str],
    *,
    groups: Sequence[object] | None = None,
    times: Sequence[object] | None = None,
    features: bool = True,
    geometry: bool | None = None,
    cache: str | os.PathLike[str] | None = None,
    device: str = "cpu",
) -> list[Finding]:
    """Look for what train, validation and test share and must not share; nothing is written or changed.

    Args:
        paths: image files, N of them.
        labels: their classes, N; of any type that can be written as text.
        splits: ``train``, ``val`` or ``test`` for each of them, N.
        groups: what each image belongs to (a person, a patient, a slide), N; None: that is not known. An image whose
            group is None or NaN belongs to none.
        times: when each was taken, as ISO 8601 texts or numbers, N; None: that is not known.
        features: whether the pretrained network that comes with ftexp looks for near duplicates, too; without it they
            are found by perceptual hashes alone, which is faster and finds fewer.
        geometry: whether pictures are aligned with those that have the nearest features, which finds edited copies and
            photographs of one scene; None: if there are features.
        cache: a file that keeps what was seen of each image, by its content, for the next call; None: nothing is kept.
        device: computes the features.

    Returns:
        What was found: copies, near copies, edited copies, scenes and groups in two splits, training on the future, one
        image under two labels or again in one split, blank images, and labels that can be told without looking at the
        image. Those of severity ``fail`` make scores look better than the model is.

    Raises:
        DataError: when the lists differ in length, a split has another name, or an image cannot be read.
    """
    samples = _samples(paths, labels, splits, groups, times)
    aligns = features if geometry is None else geometry
    extractor = PretrainedFeatures(torch.device(device), aligns) if features or aligns else None
    with closing(FingerprintCache(cache)) as known:
        seen = look_at_images(samples, extractor, known, available_cores())
        _check(samples, seen)
        return find_all(samples, seen.prints, Effort(known), "warn")[0]


def _samples(
    paths: Sequence[str | os.PathLike[str]],
    labels: Sequence[object],
    splits: Sequence[str],
    groups: Sequence[object] | None,
    times: Sequence[object] | None,
) -> list[Sample]:
    nothing = [None] * len(paths)
    columns: dict[str, list[Any]] = {  # lists, because the index of a pandas Series need not be the position
        "labels": list(labels),
        "splits": list(splits),
        "groups": nothing if groups is None else list(groups),
        "times": nothing if times is None else list(times),
    }
    for name, column in columns.items():
        if len(column) != len(paths):
            raise DataError(f"There are {len(paths)} paths and {len(column)} {name}. Give one for each image.")
    unknown = sorted({str(split) for split in columns["splits"]} - set(SPLITS))
    if unknown:
        raise DataError(f"{listed(unknown)}: a split has to be one of {', '.join(SPLITS)}.")
    return [
        Sample(os.fspath(path), str(label), split, _text(group), _text(time))
        for path, label, split, group, time in zip(paths, *columns.values(), strict=True)
    ]


def _text(value: object) -> str | None:
    """A value as text; None for a missing one."""
    text = str(value)
    return None if text in MISSING and not isinstance(value, str) else text


def _check(samples: Sequence[Sample], seen: Seen) -> None:
    bad = [f"{samples[number].path}: {reason}" for number, reason in seen.bad.items()]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(samples)} files cannot be read as images: {listed(bad, 5)}. Leave them out."
        )
