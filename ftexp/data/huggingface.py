"""Data sets of the Hugging Face hub, written out as files once and read from there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftexp.config import HuggingFaceDataConfig
from ftexp.data.samples import Sample
from ftexp.errors import DataError, nearest

log = logging.getLogger(__name__)

# Names in use on the hub -> ours.
SPLIT_NAMES = {"train": "train", "training": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}


def read_huggingface(config: HuggingFaceDataConfig) -> list[Sample]:
    """List all splits that have a name we know; others are left out and said.

    Raises:
        DataError: when the package ``datasets`` is not installed, the data set cannot be had, or has no such columns.
    """
    splits = _load(config)
    samples: list[Sample] = []
    for name, rows in splits.items():
        if name not in SPLIT_NAMES:
            log.warning("%s: the split %r is none of %s and is left out.", config.name, name, ", ".join(SPLIT_NAMES))
            continue
        _check_columns(config, rows)
        samples += _read_split(config, rows, name)
    if not samples:
        raise DataError(f"data.name={config.name} has no samples in the splits {', '.join(splits) or '(none)'}.")
    return samples


def _load(config: HuggingFaceDataConfig) -> dict[str, Any]:
    try:
        import datasets
    except ImportError as error:
        raise DataError("data=huggingface needs the package datasets: pip install 'ftexp[huggingface]'.") from error
    try:
        local = Path(config.name).expanduser().is_dir()
        loaded = datasets.load_from_disk(config.name) if local else datasets.load_dataset(config.name)
    except Exception as error:  # network, permission, name: every library below has its own
        raise DataError(f"data.name={config.name} cannot be had: {error} ({type(error).__name__}).") from error
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def _check_columns(config: HuggingFaceDataConfig, rows: Any) -> None:
    for setting in ("image_column", "label_column"):
        column = getattr(config, setting)
        if column not in rows.column_names:
            raise DataError(
                f"data.{setting}={column}: {config.name} has no such column.{nearest(column, rows.column_names)}"
                f" It has: {', '.join(rows.column_names)}."
            )


def _read_split(config: HuggingFaceDataConfig, rows: Any, name: str) -> Iterator[Sample]:
    import datasets

    rows = rows.cast_column(config.image_column, datasets.Image(decode=False))
    names = getattr(rows.features[config.label_column], "names", None)
    # The fingerprint names the content: another version of the data set gets a folder of its own.
    folder = Path(config.root).expanduser() / f"{Path(config.name).name}-{_short(rows._fingerprint)}" / name
    folder.mkdir(parents=True, exist_ok=True)
    for index, row in enumerate(rows):
        label = row[config.label_column]
        if label is None or label == -1:  # -1: the hub's convention for a withheld label
            raise DataError(f"{config.name}, split {name!r}, row {index}: no label. Leave that split out or label it.")
        path = _write_once(folder / f"{index:07d}.img", row[config.image_column])
        yield Sample(str(path), names[label] if names else str(label), SPLIT_NAMES[name])


def _write_once(path: Path, image: dict[str, Any]) -> Path:
    if image["bytes"] is None:
        return Path(image["path"])
    if not path.exists() or path.stat().st_size != len(image["bytes"]):
        path.write_bytes(image["bytes"])
    return path


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
