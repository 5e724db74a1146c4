"""Reads the rows of a Parquet file; images in it are read where they are, or written to files once."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow
import pyarrow.parquet

from ftexp.data.parquet_cells import Cell, ImageColumn, opened_parquet
from ftexp.data.places import Container
from ftexp.data.remote import UnreadableError, is_url, open_url
from ftexp.data.sources.several_labels import SEVERAL_LABELS
from ftexp.data.sources.text_table import check_columns, say_unused_split
from ftexp.data.sources.written_images import WrittenImages
from ftexp.errors import DataError

# The number of rows in memory at a time if they contain images.
IMAGES_AT_A_TIME = 64
MAX_PATH_BYTES = 1024
# In larger row groups, to read single images in a random order would take too long.
MAX_GROUP_BYTES = 32 * 2**20

log = logging.getLogger(__name__)


def parquet_rows(
    file: str, columns: Mapping[str, str], root: str
) -> Iterator[tuple[str, Mapping[str, str], Cell | None]]:
    """Yield the rows as text, with cells as in CSV, and the place of an image that is in its row.

    A path column can have image bytes, or ``struct<bytes, path>`` as on the Hugging Face hub. If the row groups are
    small, its images stay where they are; otherwise they are written to files in a folder of ``root``, and its cells
    become the paths of these files. Class numbers become the class names in the metadata of the hub.

    Args:
        file: the Parquet file, or its URL.
        columns: ``path``, ``label``, ``group``, ``time`` or ``split`` -> the name of its column.
        root: the folder that relative paths start from.

    Raises:
        DataError: naming the file and the row.
    """
    try:
        with opened_parquet(file) as parquet:
            schema = parquet.schema_arrow
            _check_types(Path(file), schema, columns)
            names = _class_names(schema, columns["label"])
            picture = columns["path"]
            holds_bytes = _holds_bytes(schema.field(picture).type)
            cells = image_cells(file, parquet, picture) if holds_bytes else None
            images = _Images(file, root, _largest_group(parquet, picture)) if cells is None else None
            read = [name for name in columns.values() if images is not None or name != picture]
            at_a_time = IMAGES_AT_A_TIME if holds_bytes and images is not None else 65_536
            for number, record in enumerate(_records(parquet, read, at_a_time), start=1):
                where = f"{file}, row {number}"
                cell = None if cells is None else next(cells)
                record[picture] = f"{number:07d}" if images is None else images.path(number, record[picture])
                record[columns["label"]] = _named(where, record[columns["label"]], names)
                yield where, {name: _as_text(where, name, value) for name, value in record.items()}, cell
    except DataError:
        raise
    except UnreadableError as error:
        raise DataError(f"{file}: {error}.") from error
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {str(error)[:300].rstrip('.')}.") from error


def image_cells(file: str, parquet: Any, column: str) -> Iterator[Cell] | None:
    """The place of every image of a column, from its first row on.

    Args:
        file: the path or URL of the table.
        parquet: the opened table.
        column: the name of a column that can have image bytes.

    Returns:
        None if the images cannot stay where they are: row groups are large, or some cells have no bytes.
    """
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    place = _leaf(groups[0], column) if groups and parquet.metadata.num_rows else None
    if place is None or _largest_group(parquet, column) > MAX_GROUP_BYTES:
        return None
    statistics = [group.column(place).statistics for group in groups]
    if any(one is None or not one.has_null_count or one.null_count for one in statistics):
        return None
    first = next(parquet.iter_batches(1, columns=[column])).column(0)[0].as_py()
    if isinstance(first, bytes) and _path_text(first) is not None:
        return None
    whole = ImageColumn(Container.of(file), column)
    return (Cell(whole, number, row) for number, group in enumerate(groups) for row in range(group.num_rows))


def _leaf(group: Any, column: str) -> int | None:
    """The number of the column with the bytes."""
    names = [group.column(number).path_in_schema for number in range(group.num_columns)]
    return next((names.index(name) for name in (column, f"{column}.bytes") if name in names), None)


def _largest_group(parquet: Any, column: str) -> int:
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    place = _leaf(groups[0], column) if groups else None
    return max((group.column(place).total_uncompressed_size for group in groups), default=0) if place is not None else 0


def _records(parquet: Any, columns: Sequence[str], at_a_time: int) -> Iterator[dict[str, Any]]:
    for batch in parquet.iter_batches(at_a_time, columns=list(columns)):
        yield from batch.to_pylist()


class _Images:
    """Writes the images of a table to a folder whose name depends on the content of the table."""

    def __init__(self, file: str, root: str, group_bytes: int) -> None:
        self._file, self._root, self._group_bytes = file, root, group_bytes
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
            self._written = self._begin()
        return str(self._written.write(f"{number:07d}.img", content).relative_to(self._root))

    def _begin(self) -> WrittenImages:
        why = (
            f"its row groups have up to {self._group_bytes / 2**20:.0f} MiB"
            if self._group_bytes > MAX_GROUP_BYTES
            else "not every cell has an image"
        )
        if is_url(self._root):
            raise DataError(
                f"{self._file}: its images have to be written to files, because {why}. Set data.root to a folder of"
                " this machine, or write the table again with row_group_size=100."
            )
        with open_url(self._file) if is_url(self._file) else open(self._file, "rb") as table:
            digest = hashlib.file_digest(cast(Any, table), "sha256").hexdigest()[:8]
        folder = Path(self._root, f"{PurePosixPath(self._file).stem}-{digest}")
        log.info("data    the images of %s are written to files in %s, because %s", self._file, folder, why)
        return WrittenImages(folder)


def _path_text(content: bytes) -> str | None:
    """The path in a cell of bytes; None if the bytes are an image."""
    try:
        text = content[: MAX_PATH_BYTES + 1].decode()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(content) <= MAX_PATH_BYTES and text.isprintable() else None


def _check_types(file: Path, schema: Any, columns: Mapping[str, str]) -> None:
    pictures = image_columns(schema)
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


def image_columns(schema: Any) -> list[str]:
    """The names of the columns that can have image bytes."""
    return [field.name for field in schema if _holds_bytes(field.type)]


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
