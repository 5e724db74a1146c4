"""Columns of tables with many rows: arrays instead of Python objects.

A million paths, labels and splits as objects take several hundred MB, and worker processes copy the memory of every
object that they look at, because even looking counts references.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = slice | npt.NDArray[np.int64]


class Column(ABC):
    """N values; which kind of column suits them is known beforehand."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """A column with these values."""

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The values of one or more columns, one after the other."""

    @abstractmethod
    def take(self, rows: Rows) -> Self:
        """A column with the values of some rows."""

    @abstractmethod
    def as_list(self) -> list[Any]:
        """All values."""

    @abstractmethod
    def __getitem__(self, row: int) -> Any: ...

    @abstractmethod
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Array(Column):
    """One array of NumPy.

    Attributes:
        array: the values, [N].
    """

    dtype: ClassVar[Any]
    array: npt.NDArray[Any]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """In the order of the values."""
        return cls(np.array(values, cls.dtype))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Copies the values."""
        return cls(np.concatenate([part.array for part in parts]))

    def take(self, rows: Rows) -> Self:
        """Copies the values, except those of a slice."""
        return type(self)(self.array[rows])

    def as_list(self) -> list[Any]:
        """New objects."""
        values: list[Any] = self.array.tolist()
        return values

    def __getitem__(self, row: int) -> Any:
        return self.array[row : row + 1].tolist()[0]

    def __len__(self) -> int:
        return len(self.array)


class Texts(_Array):
    """Texts that differ, such as digests: up to 15 bytes of UTF-8 take 16, and longer ones 16 more than their own."""

    __slots__ = ()
    dtype = np.dtypes.StringDType()


class Integers(_Array):
    """Integers of at most 64 bits."""

    __slots__ = ()
    dtype = np.int64


@dataclass(frozen=True, slots=True, eq=False)
class Repeating(Column):
    """Values that repeat, such as labels: each one once, and four bytes a row.

    Attributes:
        values: the values in the order in which they come first.
        numbers: for each row the number of its value, int32 [N].
    """

    values: tuple[Hashable, ...]
    numbers: npt.NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[Hashable]) -> Self:
        """Equal values are one."""
        number_of = {value: number for number, value in enumerate(dict.fromkeys(values))}
        numbers = np.fromiter((number_of[value] for value in values), np.int32, len(values))
        return cls(tuple(number_of), numbers)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Equal values are one."""
        every = dict.fromkeys(chain.from_iterable(part.values for part in parts))
        number_of = {value: number for number, value in enumerate(every)}
        renumbered = [np.array([number_of[value] for value in part.values], np.int32)[part.numbers] for part in parts]
        return cls(tuple(number_of), np.concatenate(renumbered))

    def take(self, rows: Rows) -> Self:
        """Keeps values that no row has any more."""
        return type(self)(self.values, self.numbers[rows])

    def as_list(self) -> list[Any]:
        """No copies of the values."""
        return [self.values[number] for number in self.numbers.tolist()]

    def __getitem__(self, row: int) -> Any:
        return self.values[self.numbers[row]]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Paths(Column):
    """Paths, of which many are in one folder.

    Attributes:
        folders: everything up to the last slash, and the slash.
        names: the rest.
    """

    folders: Repeating
    names: Texts

    @classmethod
    def of(cls, values: Sequence[str]) -> Self:
        """In the order of the values."""
        parts = [path.rpartition("/") for path in values]
        return cls(Repeating.of([above + slash for above, slash, _ in parts]), Texts.of([name for *_, name in parts]))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Copies the names."""
        return cls(Repeating.joined([part.folders for part in parts]), Texts.joined([part.names for part in parts]))

    def take(self, rows: Rows) -> Self:
        """Copies the names, except those of a slice."""
        return type(self)(self.folders.take(rows), self.names.take(rows))

    def as_list(self) -> list[str]:
        """New texts."""
        return [folder + name for folder, name in zip(self.folders.as_list(), self.names.as_list(), strict=True)]

    def __getitem__(self, row: int) -> str:
        return f"{self.folders[row]}{self.names[row]}"

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Objects(Column):
    """Objects of any kind, such as arrays; a column that has none takes no memory.

    Attributes:
        kept: the objects; None: every value is None.
        size: the number of rows.
    """

    kept: tuple[object, ...] | None
    size: int

    @classmethod
    def of(cls, values: Sequence[object]) -> Self:
        """The objects themselves."""
        return cls(None if all(value is None for value in values) else tuple(values), len(values))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The objects themselves."""
        if all(part.kept is None for part in parts):
            return cls(None, sum(part.size for part in parts))
        return cls.of([*chain.from_iterable(part.as_list() for part in parts)])

    def take(self, rows: Rows) -> Self:
        """The objects themselves."""
        numbers = range(self.size)[rows] if isinstance(rows, slice) else rows.tolist()
        return type(self)(None if self.kept is None else tuple(self.kept[row] for row in numbers), len(numbers))

    def as_list(self) -> list[Any]:
        """The objects themselves."""
        return [None] * self.size if self.kept is None else list(self.kept)

    def __getitem__(self, row: int) -> Any:
        return None if self.kept is None else self.kept[row]

    def __len__(self) -> int:
        return self.size
