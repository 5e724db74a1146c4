"""Images in the cells of a Parquet file, which are read by the row group: the last ones stay in memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ftexp.data.places import Container, FileState, Place
from ftexp.data.remote import UnreadableError, explained, is_url, open_url
from ftexp.errors import UserError

# The bytes of row groups that a process keeps.
KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ImageColumn:
    """A column of image bytes, or of ``struct<bytes, path>`` as on the Hugging Face hub."""

    container: Container
    name: str


@dataclass(frozen=True, slots=True)
class Cell(Place):
    """A cell of such a column: a row of a row group, both from 0 on."""

    column: ImageColumn
    row_group: int
    row: int

    def read(self) -> bytes:
        """Read its row group, unless that is in memory."""
        content = _last_groups.get(self.column, self.row_group)[self.row].as_py()
        if not isinstance(content, bytes):
            raise UnreadableError("its cell is empty")
        return content

    def state(self) -> FileState:
        """That of the table, with the place in it."""
        return self.column.container.file_state(self.column.name, self.row_group, self.row)


@contextmanager
def opened_parquet(path: str, footer: Any = None) -> Iterator[Any]:
    """Open a Parquet file of this machine or at a URL.

    Args:
        path: the file.
        footer: its metadata, if they have been read already; of a large file, reading them takes long.

    Raises:
        OSError: when it cannot be opened or read; of a URL as ``read_url`` does.
        ArrowException: when it is no Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    if not is_url(path):
        with pyarrow.parquet.ParquetFile(path, metadata=footer) as file:
            yield file
        return
    try:
        with open_url(path) as stream, pyarrow.parquet.ParquetFile(stream, metadata=footer) as file:
            yield file
    except (pyarrow.ArrowException, UserError):
        raise
    except Exception as error:  # the file systems raise errors of many libraries
        raise explained(error) from error


class _LastGroups:
    """The row groups that this process has read last. Threads wait for each other, so that each is read once."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As new; a process that was forked must not wait for threads that it does not have."""
        self._lock = Lock()
        self._groups: OrderedDict[tuple[ImageColumn, int], Any] = OrderedDict()
        self._footers: dict[Container, Any] = {}

    def get(self, column: ImageColumn, number: int) -> Any:
        """The images of a row group, an array of bytes."""
        if not is_url(column.container.path):
            column.container.check(os.stat(column.container.path))
        with self._lock:
            if (column, number) not in self._groups:
                footer = self._footers.get(column.container)
                self._groups[column, number], self._footers[column.container] = _read_group(column, number, footer)
                while len(self._groups) > 1 and sum(one.nbytes for one in self._groups.values()) > KEPT_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end((column, number))
            return self._groups[column, number]


def _read_group(column: ImageColumn, number: int, footer: Any) -> tuple[Any, Any]:
    """The images of a row group, and the footer of the file."""
    import pyarrow

    try:
        with opened_parquet(column.container.path, footer) as file:
            footer = file.metadata
            values = file.read_row_group(number, columns=[column.name], use_threads=False).column(column.name)
    except pyarrow.ArrowException as error:
        raise UnreadableError(f"{column.container.path} is damaged: {str(error)[:200].rstrip('.')}") from error
    values = values.combine_chunks()
    return (values.field("bytes") if pyarrow.types.is_struct(values.type) else values), footer


_last_groups = _LastGroups()
os.register_at_fork(after_in_child=_last_groups.forget)
