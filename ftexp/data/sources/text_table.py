"""Reads the rows of a table in a text file, as spreadsheets and programs write it."""

from __future__ import annotations

import codecs
import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ftexp.data.sources.folders import has_image_suffix
from ftexp.errors import DataError, listed, nearest

# The position of a row for messages, such as "photos.csv, line 7", and its cells by column.
Row = tuple[str, Mapping[str, str]]

log = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")
SEPARATORS = "comma, semicolon, tab and bar"
# The usual names of a column that names the split of a row.
SPLIT_COLUMNS = frozenset({"split", "subset", "partition"})
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_rows(file: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file in UTF-8 or UTF-16.

    The header decides whether commas, semicolons, tabs or bars separate the values. Spaces around names and values are
    removed, and empty rows are skipped.

    Args:
        file: the table.
        wanted: the columns that the header must name.

    Raises:
        DataError: naming the file and the line.
    """
    try:
        with file.open(newline="", encoding=_encoding(file)) as text:
            skipped, first_line = _first_line(text)
            delimiter = _declared(first_line)
            if delimiter is not None:
                more, first_line = _first_line(text)
                skipped += more + 1
            text.seek(0)
            for _ in range(skipped):
                text.readline()
            delimiter = delimiter or _delimiter(first_line, wanted)
            reader = csv.reader(text, strict=True, delimiter=delimiter, skipinitialspace=delimiter != "\t")
            header = [name.strip() for name in next(reader, [])]
            check_columns(file, header, wanted, _hint(header))
            say_unused_split(file, header, wanted)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    where = f"{file}, line {skipped + reader.line_num}"
                    yield where, dict(zip(header, _fitting(where, cells, header), strict=True))
    except UnicodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error}); save it as CSV in UTF-8.") from error
    except csv.Error as error:
        separated = f" Values must be separated by one of {SEPARATORS}." if reader.line_num <= 1 else ""
        raise DataError(f"{file}, line {skipped + reader.line_num}: {error}.{separated}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def check_columns(file: Path, header: Sequence[str], wanted: Sequence[str], hint: str = "") -> None:
    """Refuse a table that does not name each wanted column exactly once.

    Args:
        file: the table, for messages.
        header: the names of its columns.
        wanted: the columns that it must have.
        hint: what to do about a missing column; "" to suggest a similar name.

    Raises:
        DataError: for an empty header, and for a column that is missing or occurs twice.
    """
    if not any(header):
        raise DataError(f"{file} is empty; its first line must name the columns.")
    for column in wanted:
        if header.count(column) > 1:
            raise DataError(f"{file} has {header.count(column)} columns called {column!r}. Rename all but one of them.")
        if column not in header:
            names = listed([repr(name) for name in header], 15)
            raise DataError(
                f"{file} has no column {column!r}.{hint or nearest(column, header[:1000])} It has: {names}."
            )


def say_unused_split(file: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Warn that a table seems to have a split column that the configuration does not use."""
    for name in header:
        if name.lower() in SPLIT_COLUMNS and name not in wanted:
            log.warning(
                "%s has a column %r, which is not used. To use its splits, set data.split_column=%s.",
                file,
                name,
                name,
            )


def _hint(header: Sequence[str]) -> str:
    """What to do about a header that lacks the wanted columns, if the reason can be recognised."""
    if any(has_image_suffix(name) for name in header):
        return " Its first line must name the columns, but it seems to be a row of values."
    return f" Its columns must be separated by one of {SEPARATORS}." if len(header) == 1 else ""


def _encoding(file: Path) -> str:
    with file.open("rb") as content:
        start = content.read(4)
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    # UTF-16 without a byte order mark: every second byte of a header in Latin letters is zero.
    if len(start) == 4 and start[1] == start[3] == 0 != start[0]:
        return "utf-16-le"
    return "utf-16-be" if len(start) == 4 and start[0] == start[2] == 0 != start[1] else "utf-8"


def _first_line(text: Iterator[str]) -> tuple[int, str]:
    """The number of empty lines at the beginning, and the first line that is not empty."""
    for number, line in enumerate(text):
        if line.strip():
            return number, line
    return 0, ""


def _declared(line: str) -> str | None:
    """The delimiter that Excel declares in a separate line: ``sep=;``."""
    found = re.fullmatch(r'"?sep=(.)"?\s*', line, re.IGNORECASE)
    return found[1] if found else None


def _delimiter(line: str, wanted: Sequence[str]) -> str:
    """The delimiter with which the header names all wanted columns, or else the one with which it has most columns."""

    def names(delimiter: str) -> list[str]:
        return [name.strip().strip('"').strip() for name in line.split(delimiter)]

    fitting = [delimiter for delimiter in DELIMITERS if set(wanted) <= set(names(delimiter))]
    return fitting[0] if fitting else max(DELIMITERS, key=lambda delimiter: len(names(delimiter)))


def _fitting(where: str, cells: list[str], header: Sequence[str]) -> list[str]:
    if len(cells) == len(header):
        return cells
    advice = " Quote values that contain the delimiter, and name an index column, too."
    why = "" if len(cells) < len(header) else advice
    raise DataError(f"{where}: {len(cells)} values, but the header names {len(header)} columns.{why}")
