"""Finds shortcuts: metadata from which the label can be predicted (file name, folder, format, size, EXIF)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from ftexp.audit.findings import Finding
from ftexp.audit.fingerprint_table import Fingerprint
from ftexp.audit.look import EXIF_FIELDS
from ftexp.data.samples import Sample

MAX_SAMPLES = 5_000
FOLDS = 5
# The least gain of a shortcut over chance, as a fraction of the way to perfect accuracy, and in standard errors.
MIN_GAIN = 0.2
MIN_STANDARD_ERRORS = 4.0
NUMERIC = ("bytes", "width", "height", "bytes_per_pixel")


def find_shortcuts(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> list[Finding]:
    """Find the fields from which the label can be predicted, in the training split alone.

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
    labels = np.array([samples[i].label for i in chosen])
    findings = []
    for name, values in _fields([samples[i] for i in chosen], [prints[i] for i in chosen]).items():
        if len(set(values)) < 2:
            continue
        score, error = _balanced_accuracy(name, values, labels)
        chance = 1 / len(set(labels.tolist()))
        if score - chance >= max(MIN_GAIN * (1 - chance), MIN_STANDARD_ERRORS * error):
            findings.append(Finding("shortcut", "warn", "train", name, "", f"chance is {chance:.4f}", score))
    return sorted(findings, key=lambda finding: -finding.score)


def _fields(samples: Sequence[Sample], prints: Sequence[Fingerprint]) -> dict[str, list[str] | list[float]]:
    facts = [fingerprint.facts for fingerprint in prints]
    paths = [PurePath(sample.path) for sample in samples]
    fields: dict[str, list[str] | list[float]] = {
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
    return "/".join(part for part in PurePath(sample.path).parts[:-1] if part != sample.label)


def _balanced_accuracy(
    name: str, values: Sequence[str] | Sequence[float], labels: npt.NDArray[np.str_]
) -> tuple[float, float]:
    """The mean recall over the classes, by cross-validation, and its standard error."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    column: object
    if name == "file name":
        # Short runs of letters and digits, which find "cat_001" as well as "cam2-17".
        model = make_pipeline(CountVectorizer(analyzer="char", ngram_range=(2, 4), max_features=20_000), ComplementNB())
        column = [f" {value} " for value in values]
    elif name in NUMERIC:
        model = DecisionTreeClassifier(max_depth=5, class_weight="balanced", min_samples_leaf=5, random_state=0)
        column = np.array(values)[:, None]
    else:
        encoder = OneHotEncoder(handle_unknown="ignore")
        model = make_pipeline(encoder, DecisionTreeClassifier(max_depth=10, class_weight="balanced", random_state=0))
        column = np.array(values)[:, None]
    predicted = cross_val_predict(model, column, labels, cv=folds)
    recalls = recall_score(labels, predicted, average=None)
    _, sizes = np.unique(labels, return_counts=True)
    # The variance of a recall has a lower limit, because a perfect recall of few samples is not certain.
    variance = np.maximum(recalls * (1 - recalls), 0.25 / sizes) / sizes
    return float(recalls.mean()), float(np.sqrt(variance.sum()) / len(sizes))
