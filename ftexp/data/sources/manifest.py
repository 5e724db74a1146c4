"""Samples listed in tables (CSV or Parquet) with one row per image."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from ftexp.config import ManifestConfig
from ftexp.data.path_map import KEY_BYTES, key_of
from ftexp.data.places import Place, WholeUrl
from ftexp.data.remote import is_url
from ftexp.data.samples import SPLITS, Sample, SampleTable, is_one_line
from ftexp.data.sources.listed_paths import find_listed, inside, join_url
from ftexp.data.sources.parts import Parts
from ftexp.data.sources.several_labels import SEVERAL_LABELS, refuse_several_labels
from ftexp.data.sources.shard_names import find_shards, split_names
from ftexp.data.sources.split_names import split_of
from ftexp.data.sources.table_kinds import check_table
from ftexp.errors import DataError, nearest, shorten

log = logging.getLogger(__name__)

# How R and pandas write a missing value. It can also be a real name: NA is the country code of Namibia.
MISSING = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"})
# The longest text that is accepted as the name of a class, a group or a time; a longer cell can be an image.
MAX_NAME = 200


def read_manifest(config: ManifestConfig) -> SampleTable:
    """Make a sample of every row; no row is skipped.

    Raises:
        DataError: naming the file and line (Parquet: row), for an unreadable table, unknown columns, a missing path or
            label, an unknown split, a path outside the root, a file that does not exist or is listed twice, and
            labels that name several classes.
    """
    columns = {
        "path": config.path_column,
        "label": config.label_column,
        "group": config.group_column,
        "time": config.time_column,
        "split": config.split_column,
    }
    wanted = {key: column for key, column in columns.items() if column is not None}
    files = _find_tables(config)
    samples = SampleTable.of(sample for _, sample in _listed(config, files, wanted))
    if not samples:
        raise DataError(f"data.file={config.file} has columns but no rows.")
    _refuse_repeats(samples, partial(_listed, config, files, wanted))
    named = f"{files[0] if len(files) == 1 else config.file}, column"
    refuse_several_labels(f"{named} {config.label_column!r}", samples.each("label"))
    _warn_of_missing(f"{named} {config.label_column!r}", "class", samples.each("label"))
    _warn_of_missing(f"{named} {config.group_column!r}", "group", samples.each("group"))
    return samples


def _listed(config: ManifestConfig, files: Sequence[str], wanted: Mapping[str, str]) -> Iterator[tuple[str, Sample]]:
    """The sample of every row of every table, and where the row is."""
    splits = split_names(files) if len(files) > 1 and config.split_column is None else [None] * len(files)
    parts = Parts()
    for file, split in zip(files, splits, strict=True):
        root = _root_of(config, file)
        for where, row, cell in _rows(file, wanted, root):
            texts = {key: row[column].strip() for key, column in wanted.items()}
            _check_texts(where, texts, wanted)
            path, place = (f"{file}/{texts['path']}", cell) if cell else _located(where, texts["path"], root, parts)
            sample = _to_sample(where, texts, wanted, path, place)
            yield where, sample if split is None else replace(sample, split=split)


def _find_tables(config: ManifestConfig) -> list[str]:
    file = Path(config.file).expanduser()
    several = any(sign in config.file for sign in "*?[{")
    if not (file.is_file() or several or is_url(config.file)):
        raise DataError(f"data.file={config.file} does not exist or is not a file (looked for {file.absolute()}).")
    files = find_shards("data.file", config.file)
    for one in files:
        if not is_url(one):
            check_table(config.file if len(files) == 1 else one, Path(one))
        elif not one.lower().endswith(".parquet"):
            raise DataError(
                f"data.file={one}: of tables at URLs only .parquet is read. Download it; the images that it lists can"
                " stay at URLs."
            )
    return files


def _root_of(config: ManifestConfig, file: str) -> str:
    """The folder, or URL, that relative paths in a table start from."""
    if config.root is None:
        return file.rpartition("/")[0] if is_url(file) else str(Path(file).parent)
    root = Path(config.root).expanduser()
    if not is_url(config.root) and not root.is_dir():
        raise DataError(f"data.root={config.root} is not a folder (looked for {root.absolute()}).")
    return config.root if is_url(config.root) else str(root)


def _rows(file: str, wanted: Mapping[str, str], root: str) -> Iterator[tuple[str, Mapping[str, str], Place | None]]:
    """The rows of a table, and the place of an image that is in its row."""
    if file.lower().endswith(".parquet"):
        from ftexp.data.sources.parquet_table import parquet_rows

        yield from parquet_rows(file, wanted, root)
    else:
        from ftexp.data.sources.text_table import text_rows

        yield from ((where, row, None) for where, row in text_rows(Path(file), list(wanted.values())))


def _located(where: str, path: str, root: str, parts: Parts) -> tuple[str, Place | None]:
    """The full path of an image, or its URL, and its place if it is no local file."""
    if is_url(path) or is_url(root):
        url = path if is_url(path) else join_url(where, root, path)
        return url, parts.find(where, url) or WholeUrl(url)
    if "/" in path and (place := parts.find(where, full := inside(where, path, Path(root)))) is not None:
        return full, place
    return find_listed(where, path, Path(root)), None


def _check_texts(where: str, row: Mapping[str, str], columns: Mapping[str, str]) -> None:
    for key in ("path", "label"):
        if not row[key]:
            raise DataError(f"{where}: no {key} (column {columns[key]!r} is empty).")
    for key, text in row.items():
        if not is_one_line(text):
            what = shorten(repr(text))
            raise DataError(f"{where}: column {columns[key]!r} contains {what}, which has unprintable characters.")
        if key != "path" and len(text) > MAX_NAME:
            raise DataError(f"{where}: column {columns[key]!r} contains {shorten(text)}, too long for a {key}.")


def _to_sample(
    where: str, row: Mapping[str, str], columns: Mapping[str, str], path: str, place: Place | None
) -> Sample:
    return Sample(
        path=path,
        label=row["label"],
        split=_split(where, row["split"], columns["split"]) if "split" in row else None,
        group=row.get("group") or None,
        time=row.get("time") or None,
        place=place,
    )


def _split(where: str, text: str, column: str) -> str:
    split = split_of(text)
    if split is None:
        hint = nearest(text, SPLITS, at_least=0.6)
        raise DataError(f"{where}: split {text!r} (column {column!r}) is not one of {', '.join(SPLITS)}.{hint}")
    return split


def _warn_of_missing(where: str, what: str, names: Iterable[str | None]) -> None:
    for name, count in Counter(name for name in names if name in MISSING).items():
        log.warning(
            "%s: %d rows contain %r, which is used as the name of a %s. If it means a missing value, remove them.",
            where,
            count,
            name,
            what,
        )


def _refuse_repeats(samples: SampleTable, listed: Callable[[], Iterator[tuple[str, Sample]]]) -> None:
    """Refuse an image that is listed twice; ``listed`` lists the rows once more, to say where."""
    keys = np.fromiter((key_of(_absolute(path)) for path in samples.each("path")), f"V{KEY_BYTES}", len(samples))
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    first_of = first[number]
    repeats = np.flatnonzero(first_of < np.arange(len(samples)))
    if len(repeats) == 0:
        return
    row, earlier = int(repeats[0]), int(first_of[repeats[0]])
    rows = list(islice(listed(), row + 1))
    (where, sample), (place, other) = rows[row], rows[earlier]
    advice = "Keep one of them." if other.label == sample.label else f"Their labels differ. {SEVERAL_LABELS}"
    raise DataError(f"{where}: {sample.path} is listed twice, first in {place}. {advice}")


def _absolute(path: str) -> str:
    return path if os.path.isabs(path) or is_url(path) else os.path.abspath(path)
