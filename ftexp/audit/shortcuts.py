"""Finds shortcuts: metadata from which the label can be predicted (file name, folder, format, size, EXIF)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.findings import Finding
from ftexp.audit.fingerprint_table import Fingerprint
from ftexp.audit.label_from_field import VERSION, balanced_accuracy
from ftexp.audit.look import EXIF_FIELDS
from ftexp.data.samples import Sample, unified

MAX_SAMPLES = 5_000
FOLDS = 5
# The least gain of a shortcut over chance, as a fraction of the way to perfect accuracy, and in standard errors.
MIN_GAIN = 0.2
MIN_STANDARD_ERRORS = 4.0

Values = list[str] | list[float]


def find_shortcuts(samples: Sequence[Sample], prints: Sequence[Fingerprint], cache: FingerprintCache) -> list[Finding]:
    """Find the fields from which the label can be predicted, in the training split alone.

    Args:
        samples: all samples, each with its split.
        prints: their fingerprints, in the same order.
        cache: keeps how well each field predicts these labels.

    Returns:
        One finding per field, with its name as ``path_a`` and the cross-validated balanced accuracy as the score.
    """
    chosen = [i for i, sample in enumerate(samples) if sample.split == "train" and sample.pixels is None]
    counts = Counter(samples[i].label for i in chosen)
    chosen = [i for i in chosen if counts[samples[i].label] >= FOLDS]
    if len({samples[i].label for i in chosen}) < 2:
        return []
    if len(chosen) > MAX_SAMPLES:
        chosen = np.random.default_rng(0).choice(chosen, MAX_SAMPLES, replace=False).tolist()
        counts = Counter(samples[i].label for i in chosen)
        chosen = [i for i in chosen if counts[samples[i].label] >= FOLDS]
    labels = [samples[i].label for i in chosen]
    fields = _fields([samples[i] for i in chosen], [prints[i] for i in chosen])
    varied = {name: values for name, values in fields.items() if len(set(values)) >= 2}
    chance = 1 / len(set(labels))
    findings = []
    for name, (score, error) in _scores(varied, labels, cache).items():
        if score - chance >= max(MIN_GAIN * (1 - chance), MIN_STANDARD_ERRORS * error):
            findings.append(Finding("shortcut", "warn", "train", name, "", f"chance is {chance:.4f}", score))
    return sorted(findings, key=lambda finding: -finding.score)


def _scores(
    fields: Mapping[str, Values], labels: Sequence[str], cache: FingerprintCache
) -> dict[str, tuple[float, float]]:
    """The balanced accuracy of each field, and its standard error."""
    given = json.dumps([fields, labels, FOLDS, VERSION])
    key = f"shortcuts {hashlib.sha256(given.encode()).hexdigest()}"
    if known := cache.get([key]):
        return {name: (score, error) for name, (score, error) in json.loads(known[key]).items()}
    scores = {name: balanced_accuracy(name, values, labels, FOLDS) for name, values in fields.items()}
    cache.put({key: json.dumps(scores).encode()})
    return scores


def _fields(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> dict[str, Values]:
    facts = [fingerprint.facts for fingerprint in prints]
    paths = [PurePath(sample.path) for sample in samples]
    fields: dict[str, Values] = {
        "file name": [path.stem for path in paths],
        # The folder of the class is left out, because the label comes from it.
        "folder": [_folder(sample) for sample in samples],
        "extension": [path.suffix for path in paths],
        "format and mode": [f"{fact.get('format')} {fact.get('mode')}" for fact in facts],
        "bytes": [float(fact["bytes"]) for fact in facts],
        "width": [float(fact["width"]) for fact in facts],
        "height": [float(fact["height"]) for fact in facts],
        "bytes_per_pixel": [float(f["bytes"]) / (float(f["width"]) * float(f["height"])) for f in facts],
    }
    return fields | {name: [str(fact.get(name, "")) for fact in facts] for name in EXIF_FIELDS.values()}


def _folder(sample: Sample) -> str:
    label = unified(sample.label)
    return "/".join(part for part in PurePath(sample.path).parts[:-1] if unified(part) != label)
