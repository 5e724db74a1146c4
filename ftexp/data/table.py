"""Tables of rows in columns, which are used as sequences of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ftexp.data.columns import Column

# The number of rows that are objects at a time where all are read or written.
ROWS_AT_A_TIME = 4096

Row = TypeVar("Row")


class Table(Sequence[Row], Generic[Row]):
    """A sequence of rows; each is made when it is asked for.

    Attributes:
        columns_of: the names of a row's fields, in the order of its arguments, and the kind of column of each.
        row: makes a row from its fields.
    """

    __slots__ = ("_columns",)

    columns_of: ClassVar[Mapping[str, type[Column]]]
    row: ClassVar[Any]

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """A table of these rows, in their order; a table is returned as it is."""
        if isinstance(rows, cls):
            return rows
        left, parts = iter(rows), list[Self]()
        while (chunk := list(islice(left, ROWS_AT_A_TIME))) or not parts:
            columns = {name: kind.of([getattr(row, name) for row in chunk]) for name, kind in cls.columns_of.items()}
            parts.append(cls(columns))
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of tables, one after the other."""
        if len(parts) < 2:
            return parts[0] if parts else cls.of(())
        return cls(
            {name: kind.joined([part._columns[name] for part in parts]) for name, kind in cls.columns_of.items()}
        )

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64] | slice) -> Self:
        """A table of the rows with these numbers, in this order."""
        chosen = rows if isinstance(rows, slice) else np.asarray(rows, np.int64)
        return type(self)({name: column.take(chosen) for name, column in self._columns.items()})

    def replaced(self, **values: Sequence[Any]) -> Self:
        """The same rows with other values in some columns, one for each row."""
        columns = {name: self.columns_of[name].of(of_rows) for name, of_rows in values.items()}
        assert all(len(column) == len(self) for column in columns.values())
        return type(self)({**self._columns, **columns})

    def values(self, name: str) -> list[Any]:
        """One field of all rows, without making the rows."""
        return self._columns[name].as_list()

    def each(self, name: str) -> Iterator[Any]:
        """One field of all rows, of which few are objects at a time."""
        column = self._columns[name]
        for start in range(0, len(self), ROWS_AT_A_TIME):
            yield from column.take(slice(start, start + ROWS_AT_A_TIME)).as_list()

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Row | Self:
        if isinstance(at, slice):
            return self.take(at)
        number = range(len(self))[at]  # of one from the end, too; an IndexError beyond
        row: Row = self.row(*(column[number] for column in self._columns.values()))
        return row

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), ROWS_AT_A_TIME):
            part = self.take(slice(start, start + ROWS_AT_A_TIME))
            yield from map(self.row, *(column.as_list() for column in part._columns.values()))
