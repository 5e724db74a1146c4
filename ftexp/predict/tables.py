"""Tables of predictions in files: CSV and JSON lines, which grow by the row, and Parquet, which grows by the part."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from ftexp.errors import ConfigError
from ftexp.predict.layout import PATH, Layout, Row, Value

SECONDS_BETWEEN_FLUSHES = 1.0
# A part of a Parquet table is written after so many rows, and at least so often: what is in memory can be lost.
ROWS_PER_PART = 10_000
SECONDS_PER_PART = 300.0
PARTS = "part-*.parquet"


class Table(Protocol):
    """A table that is written row by row, and gone on with where it was broken off."""

    def begin(self) -> None:
        """Begin it anew, empty; to be called before anything is added."""

    def whole_rows(self) -> Iterator[str]:
        """The paths of the rows that are there; at the end, a row that was not written whole is removed."""

    def add(self, row: Row) -> None:
        """Add a row."""

    def close(self) -> None:
        """Write what is not written yet."""


def table_at(path: Path, layout: Layout) -> Table:
    """The table in a file, or for Parquet in a folder, by the end of its name; see ``kind_of``."""
    return KINDS[kind_of(path)](path, layout)


def kind_of(path: Path) -> str:
    """The end of a table's name.

    Raises:
        ConfigError: when there is no such kind of table.
    """
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise ConfigError(
            f"--output {path}: its name says what is written. Let it end in .csv, .tsv, .jsonl (JSON lines) or "
            ".parquet (a folder of part files)."
        )
    return suffix


class TextFile:
    """A file of lines, the end of the last whole row known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._flushed = 0.0
        self.num_bytes_read = 0  # of the lines that were taken so far

    def lines(self) -> Iterator[str]:
        """Every line that has an end, without it."""
        self.num_bytes_read = 0
        with self._path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.num_bytes_read += len(line)
                yield line.decode("utf-8", "replace")

    def cut(self, num_bytes: int) -> None:
        """Remove what follows; the next text is appended there."""
        os.truncate(self._path, num_bytes)

    def open(self, mode: str = "a") -> IO[str]:
        """For writing, once."""
        if self._file is None:
            self._file = self._path.open(mode, encoding="utf-8", newline="")
        return self._file

    def flush(self) -> None:
        """Let what was written reach the file, at most once a second."""
        now = time.monotonic()
        if self._file is not None and now - self._flushed >= SECONDS_BETWEEN_FLUSHES:
            self._file.flush()
            self._flushed = now

    def close(self) -> None:
        """Write what is not written yet."""
        if self._file is not None:
            self._file.close()
            self._file = None


class CsvTable:
    """Rows with a heading; None is an empty cell."""

    def __init__(self, path: Path, layout: Layout, delimiter: str) -> None:
        self._file = TextFile(path)
        self._columns = list(layout.columns)
        self._delimiter = delimiter

    def begin(self) -> None:
        """See ``Table``."""
        self._file.open("w").write(self._line(self._columns))

    def whole_rows(self) -> Iterator[str]:
        """See ``Table``."""
        whole = 0
        reader = csv.reader(self._file.lines(), delimiter=self._delimiter, strict=True)
        with suppress(csv.Error):  # the last row ends within quotes
            for row in reader:
                if len(row) != len(self._columns):
                    break
                if whole:
                    yield row[0]
                whole = self._file.num_bytes_read
        if whole:
            self._file.cut(whole)
        else:  # not even the heading
            self.begin()

    def add(self, row: Row) -> None:
        """See ``Table``."""
        self._file.open().write(self._line(["" if value is None else str(value) for value in row]))
        self._file.flush()

    def close(self) -> None:
        """See ``Table``."""
        self._file.close()

    def _line(self, cells: list[str]) -> str:
        line = io.StringIO()  # by its end, the writer knows what has to stand in quotes: both signs that end lines
        csv.writer(line, delimiter=self._delimiter, lineterminator="\r\n").writerow(cells)
        return line.getvalue()[:-2] + "\n"


class JsonLinesTable:
    """An object per line; None is null."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._file = TextFile(path)
        self._columns = list(layout.columns)

    def begin(self) -> None:
        """See ``Table``."""
        self._file.open("w")

    def whole_rows(self) -> Iterator[str]:
        """See ``Table``."""
        whole = 0
        with suppress(ValueError, KeyError, TypeError):
            for line in self._file.lines():
                yield str(json.loads(line)[PATH])
                whole = self._file.num_bytes_read
        self._file.cut(whole)

    def add(self, row: Row) -> None:
        """See ``Table``."""
        content = dict(zip(self._columns, map(_plain, row), strict=True))
        self._file.open().write(json.dumps(content, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """See ``Table``."""
        self._file.close()


class ParquetTable:
    """A folder of files, each written whole or not at all; pandas, DuckDB, Spark and others read it as one table."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._columns = layout.columns
        self._rows: list[Row] = []
        self._num_parts = 0
        self._part_begun = time.monotonic()

    def begin(self) -> None:
        """See ``Table``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._parts():
            part.unlink()

    def whole_rows(self) -> Iterator[str]:
        """See ``Table``."""
        import pyarrow.parquet as parquet

        for part in self._parts():
            self._num_parts += 1
            with parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(ROWS_PER_PART, columns=[PATH]):
                    yield from batch.column(0).to_pylist()

    def add(self, row: Row) -> None:
        """See ``Table``."""
        self._rows.append(row)
        if len(self._rows) >= ROWS_PER_PART or time.monotonic() - self._part_begun > SECONDS_PER_PART:
            self.close()

    def close(self) -> None:
        """See ``Table``."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        self._part_begun = time.monotonic()
        if not self._rows:
            return
        columns: Sequence[Sequence[Value]] = list(zip(*self._rows, strict=True))
        arrays = [
            pa.array(values, pa.float32() if is_number else pa.string())
            for values, is_number in zip(columns, self._columns.values(), strict=True)
        ]
        part = self._folder / f"part-{self._num_parts:05d}.parquet"
        unfinished = part.with_name(f".{part.name}.tmp")
        parquet.write_table(pa.Table.from_arrays(arrays, names=list(self._columns)), unfinished)
        os.replace(unfinished, part)
        self._num_parts += 1
        self._rows = []

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob(PARTS), key=lambda part: (len(part.name), part.name))


def _plain(value: Value) -> str | float | None:
    """A number with the digits that tell float32 values apart."""
    return float(str(value)) if isinstance(value, np.float32) else value


KINDS: dict[str, Callable[[Path, Layout], Table]] = {
    ".csv": partial(CsvTable, delimiter=","),
    ".tsv": partial(CsvTable, delimiter="\t"),
    ".jsonl": JsonLinesTable,
    ".ndjson": JsonLinesTable,
    ".parquet": ParquetTable,
}
