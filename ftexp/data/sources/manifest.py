"""Samples listed in a table (CSV or Parquet) with one row per image."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftexp.config import ManifestConfig
from ftexp.data.samples import SPLITS, Sample, is_one_line
from ftexp.data.sources.listed_paths import find_listed
from ftexp.data.sources.several_labels import SEVERAL_LABELS, refuse_several_labels
from ftexp.data.sources.split_names import split_of
from ftexp.data.sources.table_kinds import check_table
from ftexp.errors import DataError, nearest, shorten

log = logging.getLogger(__name__)

# How R and pandas write a missing value. It can also be a real name: NA is the country code of Namibia.
MISSING = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"})
# The longest text that is accepted as the name of a class, a group or a time; a longer cell can be an image.
MAX_NAME = 200


def read_manifest(config: ManifestConfig) -> list[Sample]:
    """Make a sample of every row; no row is skipped.

    Raises:
        DataError: naming the file and line (Parquet: row), for an unreadable table, unknown columns, a missing path or
            label, an unknown split, a path outside the root, a file that does not exist or is listed twice, and
            labels that name several classes.
    """
    file = Path(config.file).expanduser()
    if not file.is_file():
        raise DataError(f"data.file={config.file} does not exist or is not a file (looked for {file.absolute()}).")
    check_table(config.file, file)
    columns = {
        "path": config.path_column,
        "label": config.label_column,
        "group": config.group_column,
        "time": config.time_column,
        "split": config.split_column,
    }
    wanted = {key: column for key, column in columns.items() if column is not None}
    root = Path(config.root).expanduser() if config.root is not None else file.parent
    if not root.is_dir():
        raise DataError(f"data.root={config.root} is not a folder (looked for {root.absolute()}).")
    if file.suffix.lower() == ".parquet":
        from ftexp.data.sources.parquet_table import parquet_rows

        rows = parquet_rows(file, wanted, root)
    else:
        from ftexp.data.sources.text_table import text_rows

        rows = text_rows(file, list(wanted.values()))

    samples: list[Sample] = []
    first_seen: dict[str, tuple[str, str]] = {}
    names: dict[str, str] = {}  # one string for all rows with the same class, group, time or split
    for where, row in rows:
        texts = {key: row[column].strip() for key, column in wanted.items()}
        texts |= {key: names.setdefault(text, text) for key, text in texts.items() if key != "path"}
        sample = _to_sample(where, texts, wanted, root)
        _refuse_second(where, sample, first_seen)
        samples.append(sample)
    if not samples:
        raise DataError(f"data.file={config.file} has columns but no rows.")
    refuse_several_labels(f"{file}, column {config.label_column!r}", (sample.label for sample in samples))
    _warn_of_missing(f"{file}, column {config.label_column!r}", "class", [sample.label for sample in samples])
    _warn_of_missing(f"{file}, column {config.group_column!r}", "group", [sample.group for sample in samples])
    return samples


def _to_sample(where: str, row: dict[str, str], columns: Mapping[str, str], root: Path) -> Sample:
    for key in ("path", "label"):
        if not row[key]:
            raise DataError(f"{where}: no {key} (column {columns[key]!r} is empty).")
    for key, text in row.items():
        if not is_one_line(text):
            what = shorten(repr(text))
            raise DataError(f"{where}: column {columns[key]!r} contains {what}, which has unprintable characters.")
        if key != "path" and len(text) > MAX_NAME:
            raise DataError(f"{where}: column {columns[key]!r} contains {shorten(text)}, too long for a {key}.")
    return Sample(
        path=find_listed(where, row["path"], root),
        label=row["label"],
        split=_split(where, row["split"], columns["split"]) if "split" in row else None,
        group=row.get("group") or None,
        time=row.get("time") or None,
    )


def _split(where: str, text: str, column: str) -> str:
    split = split_of(text)
    if split is None:
        hint = nearest(text, SPLITS, at_least=0.6)
        raise DataError(f"{where}: split {text!r} (column {column!r}) is not one of {', '.join(SPLITS)}.{hint}")
    return split


def _warn_of_missing(where: str, what: str, names: Sequence[str | None]) -> None:
    for name, count in Counter(name for name in names if name in MISSING).items():
        log.warning(
            "%s: %d rows contain %r, which is used as the name of a %s. If it means a missing value, remove them.",
            where,
            count,
            name,
            what,
        )


def _refuse_second(where: str, sample: Sample, first_seen: dict[str, tuple[str, str]]) -> None:
    path = sample.path if os.path.isabs(sample.path) else os.path.abspath(sample.path)
    line, label = first_seen.setdefault(path, (where, sample.label))
    if line != where:
        advice = "Keep one of them." if label == sample.label else f"Their labels differ. {SEVERAL_LABELS}"
        raise DataError(f"{where}: {sample.path} is listed twice, first in {line}. {advice}")
