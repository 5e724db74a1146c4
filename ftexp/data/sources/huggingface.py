"""Datasets of the Hugging Face hub, whose images are written to files once and read from there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftexp.config import HuggingFaceDataConfig
from ftexp.data.samples import SPLITS, Sample
from ftexp.data.sources.several_labels import SEVERAL_LABELS, refuse_several_labels
from ftexp.data.sources.split_names import split_of
from ftexp.data.sources.written_images import WrittenImages
from ftexp.errors import DataError, nearest

log = logging.getLogger(__name__)


def read_huggingface(config: HuggingFaceDataConfig) -> list[Sample]:
    """List the samples of all splits that have a usual name; other splits are left out with a warning.

    Raises:
        DataError: when the package ``datasets`` is not installed, when the dataset cannot be loaded, or when it does
            not have the configured columns.
    """
    splits = _load(config)
    samples: list[Sample] = []
    read: dict[str, str] = {}
    for name, rows in splits.items():
        split = split_of(name)
        if split is None:
            log.warning("%s: the split %r is not one of %s and is left out.", config.name, name, ", ".join(SPLITS))
            continue
        if split in read:
            raise DataError(
                f"{config.name} has the splits {read[split]} and {name}, and both are usual names of {split}."
            )
        read[split] = name
        _check_columns(config, rows)
        samples += _read_split(config, rows, name, split)
    if not samples:
        raise DataError(f"data.name={config.name} has no samples in the splits {', '.join(splits) or '(none)'}.")
    refuse_several_labels(f"{config.name}, column {config.label_column!r}", {sample.label for sample in samples})
    return samples


def _load(config: HuggingFaceDataConfig) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise DataError("data=huggingface needs the package datasets: pip install 'ftexp[huggingface]'.") from error
    try:
        folder = Path(config.name).expanduser()
        name = str(folder) if folder.is_dir() else config.name
        saved = any((folder / file).exists() for file in ("dataset_dict.json", "state.json"))
        # A folder that datasets did not save is loaded like one of the hub: Parquet files, or images in folders.
        loaded = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:  # network, permission, name: each of the libraries raises errors of its own
        raise DataError(f"data.name={config.name} cannot be loaded: {error} ({type(error).__name__}).") from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _check_columns(config: HuggingFaceDataConfig, rows: Any) -> None:
    for setting in ("image_column", "label_column"):
        column = getattr(config, setting)
        if column not in rows.column_names:
            raise DataError(
                f"data.{setting}={column}: {config.name} has no such column.{nearest(column, rows.column_names)}"
                f" It has: {', '.join(rows.column_names)}."
            )


def _read_split(config: HuggingFaceDataConfig, rows: Any, name: str, split: str) -> Iterator[Sample]:
    import datasets

    rows = rows.cast_column(config.image_column, datasets.Image(decode=False))
    names = getattr(rows.features[config.label_column], "names", None)
    # The fingerprint identifies the content, so that another version of the dataset has another folder.
    folder = Path(config.root).expanduser() / f"{Path(config.name).name}-{_short(rows._fingerprint)}" / name
    written = WrittenImages(folder)
    for index, row in enumerate(rows):
        label = row[config.label_column]
        if isinstance(label, list):
            raise DataError(f"{config.name}: column {config.label_column!r} contains lists. {SEVERAL_LABELS}")
        if label is None or label == -1:  # -1: the hub's convention for a withheld label
            raise DataError(f"{config.name}, split {name!r}, row {index}: no label. Remove this split or label it.")
        image = row[config.image_column]
        if image is None:
            raise DataError(f"{config.name}, split {name!r}, row {index}: no image. Remove this row.")
        path = image["path"] if image["bytes"] is None else written.write(f"{index:07d}.img", image["bytes"])
        yield Sample(str(path), names[label] if names else str(label), split)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
