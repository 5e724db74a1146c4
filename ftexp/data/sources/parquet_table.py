"""Reads the rows of a Parquet file; images in it are written to files once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ftexp.data.sources.several_labels import SEVERAL_LABELS
from ftexp.data.sources.text_table import Row, check_columns, say_unused_split
from ftexp.data.sources.written_images import WrittenImages
from ftexp.errors import DataError

# The number of rows in memory at a time if they contain images.
IMAGES_AT_A_TIME = 64
MAX_PATH_BYTES = 1024


def parquet_rows(file: Path, columns: Mapping[str, str], root: Path) -> Iterator[Row]:
    """Yield the rows as text, with cells as in CSV.

    A path column of image bytes, or of ``struct<bytes, path>`` as on the Hugging Face hub, is written to files in a
    folder of ``root``, and its cells become the paths of these files. Class numbers become the class names in the
    metadata of the hub.

    Args:
        file: the Parquet file.
        columns: ``path``, ``label``, ``group``, ``time`` or ``split`` -> the name of its column.
        root: the folder that relative paths start from.

    Raises:
        DataError: naming the file and the row.
    """
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        schema = parquet.schema_arrow
        _check_types(file, schema, columns)
        images = _Images(file, root)
        names = _class_names(schema, columns["label"])
        holds_bytes = _holds_bytes(schema.field(columns["path"]).type)
        number = 0
        for batch in parquet.iter_batches(IMAGES_AT_A_TIME if holds_bytes else 65_536, columns=list(columns.values())):
            for record in batch.to_pylist():
                number += 1
                where = f"{file}, row {number}"
                record[columns["path"]] = images.path(number, record[columns["path"]])
                record[columns["label"]] = _named(where, record[columns["label"]], names)
                yield where, {name: _as_text(where, name, value) for name, value in record.items()}
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {str(error)[:300].rstrip('.')}.") from error


class _Images:
    """Writes the images of a table to a folder whose name depends on the content of the table."""

    def __init__(self, file: Path, root: Path) -> None:
        self._file, self._root = file, root
        self._written: WrittenImages | None = None

    def path(self, number: int, value: Any) -> Any:
        """The path in a cell; for a cell of image bytes, the path of the file that they are written to."""
        content = value
        if isinstance(value, dict):
            content = value.get("path") if value.get("bytes") is None else value["bytes"]
        if not isinstance(content, bytes):
            return content
        if (text := _path_text(content)) is not None and not isinstance(value, dict):
            return text
        if self._written is None:
            with self._file.open("rb") as table:
                digest = hashlib.file_digest(table, "sha256").hexdigest()[:8]
            self._written = WrittenImages(self._root / f"{self._file.stem}-{digest}")
        return str(self._written.write(f"{number:07d}.img", content).relative_to(self._root))


def _path_text(content: bytes) -> str | None:
    """The path in a cell of bytes; None if the bytes are an image."""
    try:
        text = content[: MAX_PATH_BYTES + 1].decode()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(content) <= MAX_PATH_BYTES and text.isprintable() else None


def _check_types(file: Path, schema: Any, columns: Mapping[str, str]) -> None:
    pictures = [field.name for field in schema if _holds_bytes(field.type)]
    hint = f" Column {pictures[0]!r} contains images: set data.path_column={pictures[0]}." if pictures else ""
    check_columns(file, schema.names, [columns["path"]], hint)
    check_columns(file, schema.names, list(columns.values()))
    say_unused_split(file, schema.names, list(columns.values()))
    types = pyarrow.types
    for role, column in columns.items():
        kind = schema.field(column).type
        nested = types.is_nested(kind) and not (role == "path" and _holds_bytes(kind))
        if role == "label" and nested and not types.is_struct(kind):
            raise DataError(f"{file}: column {column!r} contains lists ({kind}). {SEVERAL_LABELS}")
        if nested:
            raise DataError(f"{file}: column {column!r} contains {str(kind)[:100]}, which cannot be a {role}.")


def _holds_bytes(kind: Any) -> bool:
    types = pyarrow.types
    if types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _class_names(schema: Any, column: str) -> Sequence[str] | None:
    """The class names in the metadata of the Hugging Face hub; None without such metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _named(where: str, label: Any, names: Sequence[str] | None) -> Any:
    if names is None or not isinstance(label, int):
        return label
    if not 0 <= label < len(names):
        raise DataError(
            f"{where}: class {label} is not one of the {len(names)} classes (from 0) that the table names. Remove the"
            " row."
        )
    return names[label]


def _as_text(where: str, column: str, value: Any) -> str:
    """A cell as in CSV. Whole floats lose their point, because integers become floats if some are missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        text = _path_text(value)
        if text is None:
            raise DataError(f"{where}: column {column!r} contains {len(value):,} bytes that are not text.")
        return text
    return str(value)
