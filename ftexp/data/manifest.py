"""Samples listed in a table: CSV or Parquet, one row per image."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from ftexp.config import ManifestConfig
from ftexp.data.samples import SPLITS, Sample
from ftexp.errors import DataError, nearest

# A row as text, with where it stands for messages: "photos.csv, line 7".
Row = tuple[str, Mapping[str, str]]


def read_manifest(config: ManifestConfig) -> list[Sample]:
    """Every row becomes a sample; nothing is skipped and nothing is guessed.

    Raises:
        DataError: naming file and line (Parquet: row): an unreadable table, unknown columns, a missing path or
            label, an unknown split, a path outside the root, a file that does not exist, or one listed twice.
    """
    file = Path(config.file).expanduser()
    if not file.is_file():
        raise DataError(f"data.file={config.file} does not exist or is no file (looked for {file.absolute()}).")
    readers = {".csv": _csv_rows, ".parquet": _parquet_rows}
    if file.suffix.lower() not in readers:
        raise DataError(f"data.file={config.file}: the name must end in .csv or .parquet, to say what it is.")
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

    samples: list[Sample] = []
    first_seen: dict[str, str] = {}
    for where, row in readers[file.suffix.lower()](file, list(wanted.values())):
        sample = _to_sample(where, {key: row[column].strip() for key, column in wanted.items()}, wanted, root)
        place = os.path.abspath(sample.path)
        if place in first_seen:
            raise DataError(f"{where}: {sample.path} is listed twice, first in {first_seen[place]}. Keep one of them.")
        first_seen[place] = where
        samples.append(sample)
    if not samples:
        raise DataError(f"data.file={config.file} has columns but no rows.")
    return samples


def _to_sample(where: str, row: dict[str, str], columns: Mapping[str, str], root: Path) -> Sample:
    for key in ("path", "label"):
        if not row[key]:
            raise DataError(f"{where}: no {key} (column {columns[key]!r} is empty).")
    for key, text in row.items():
        if not text.isprintable():
            raise DataError(f"{where}: column {columns[key]!r} holds {text!r}, with characters that do not print.")
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(
            f"{where}: split {split!r} (column {columns['split']!r}) is none of"
            f" {', '.join(SPLITS)}.{nearest(split, SPLITS)}"
        )
    return Sample(
        path=str(_inside(where, row["path"], root)),
        label=row["label"],
        split=split,
        group=row.get("group") or None,
        time=row.get("time") or None,
    )


def _inside(where: str, path: str, root: Path) -> Path:
    # By name, not by what links point to: a link inside the root is its owner's decision, ".." is the table's.
    full = Path(os.path.normpath(root / path))
    if not full.absolute().is_relative_to(os.path.abspath(root)):
        raise DataError(
            f"{where}: {path} lies outside data.root={root}. Set data.root to a folder that holds all images."
        )
    try:
        exists = full.is_file()
    except (OSError, ValueError) as error:  # a name too long for the file system
        raise DataError(f"{where}: {path[:100]}: {error}") from error
    if not exists:
        raise DataError(f"{where}: there is no file {full} (paths start from data.root={root}).")
    return full


def _csv_rows(file: Path, wanted: Sequence[str]) -> Iterator[Row]:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.reader(text, strict=True)
            header = next(reader, [])
            _check_columns(file, header, wanted)
            for cells in reader:
                where = f"{file}, line {reader.line_num}"
                if not cells:
                    continue  # a blank line
                if len(cells) != len(header):
                    raise DataError(f"{where}: {len(cells)} values, but the header names {len(header)} columns.")
                yield where, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error}); save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: {error}.") from error


def _parquet_rows(file: Path, wanted: Sequence[str]) -> Iterator[Row]:
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        _check_columns(file, parquet.schema_arrow.names, wanted)
        number = 0
        for batch in parquet.iter_batches(columns=list(wanted)):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", {name: _as_text(value) for name, value in record.items()}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}.") from error


def _as_text(value: object) -> str:
    """Cells as CSV would show them; whole floats without their point, as integers with gaps become floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _check_columns(file: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    if not header:
        raise DataError(f"{file} is empty; its first line must name the columns.")
    for column in wanted:
        if header.count(column) > 1:
            raise DataError(f"{file} has {header.count(column)} columns called {column!r}; which one is meant?")
        if column not in header:
            shown = ", ".join(map(repr, header[:30]))[:500]
            raise DataError(f"{file} has no column {column!r}.{nearest(column, header)} It has: {shown}.")
