"""A column of dataclasses, such as the places of images, whose fields are columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import chain
from typing import Any, Self

from ftexp.data.columns import Column, Integers, Repeating, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Records(Column):
    """Dataclasses, or None: if all are of one class, each of its fields is a column.

    Attributes:
        make: makes a value from the fields.
        fields: the columns of the fields.
    """

    make: Callable[..., Any]
    fields: tuple[Column, ...]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """The values have to be hashable, as their fields have to be."""
        kinds = {type(value) for value in values}
        if len(kinds) != 1 or not is_dataclass(kind := kinds.pop()):
            return cls(_itself, (Repeating.of(values),))
        columns = [[getattr(value, field.name) for value in values] for field in fields(kind)]
        return cls(kind, tuple(_suitable(column).of(column) for column in columns))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Columns of fields if all parts have the same."""
        if len({(part.make, tuple(map(type, part.fields))) for part in parts}) > 1:
            return cls.of([*chain.from_iterable(part.as_list() for part in parts)])
        together = zip(*(part.fields for part in parts), strict=True)
        return cls(parts[0].make, tuple(type(columns[0]).joined(columns) for columns in together))

    def take(self, rows: Rows) -> Self:
        """As the columns of the fields."""
        return type(self)(self.make, tuple(column.take(rows) for column in self.fields))

    def as_list(self) -> list[Any]:
        """New dataclasses."""
        return [self.make(*values) for values in zip(*(column.as_list() for column in self.fields), strict=True)]

    def __getitem__(self, row: int) -> Any:
        return self.make(*(column[row] for column in self.fields))

    def __len__(self) -> int:
        return len(self.fields[0])


def _suitable(values: Sequence[Any]) -> type[Column]:
    return Integers if all(type(value) is int for value in values) else Repeating


def _itself(value: Any) -> Any:
    return value
