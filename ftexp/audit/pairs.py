"""Pairs of samples: which are searched, and the sets that they join."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

# (row indices [R], column indices [C]) -> bool [R, C]: which pairs to search.
Wanted = Callable[[Numbers, Numbers], npt.NDArray[np.bool_]]


def is_equal(number: Numbers, rows: Numbers, columns: Numbers) -> npt.NDArray[np.bool_]:
    """Whether two samples have equal numbers; a ``Wanted`` like ``differ``."""
    equal: npt.NDArray[np.bool_] = number[rows][:, None] == number[columns][None, :]
    return equal


def differ(number: Numbers, rows: Numbers, columns: Numbers) -> npt.NDArray[np.bool_]:
    """Whether two samples have different numbers (of a split, of a set): with its first argument set, a ``Wanted``."""
    different: npt.NDArray[np.bool_] = number[rows][:, None] != number[columns][None, :]
    return different


def both(first: Wanted, second: Wanted) -> Wanted:
    """The pairs that two conditions want."""

    def wanted(rows: Numbers, columns: Numbers) -> npt.NDArray[np.bool_]:
        return first(rows, columns) & second(rows, columns)

    return wanted


def unique_pairs(*pairs: Numbers) -> Numbers:
    """Pairs in any order and number, each once, with the smaller number first."""
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def components(edges: Sequence[tuple[int, int]], size: int) -> Numbers:
    """Of each of ``size`` images the number of its set, int64 [size]; a chain of edges joins images to one set."""
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    first = np.arange(size)  # of each image, one of its set with a smaller number
    while len(ends):  # sets with an edge between them are joined, as in Shiloach and Vishkin (1982)
        np.minimum.at(first, ends.max(axis=1), ends.min(axis=1))
        while not np.array_equal(first, first[first]):
            first = first[first]
        ends = first[ends]
        ends = ends[ends[:, 0] != ends[:, 1]]
    number: Numbers = np.unique(first, return_inverse=True)[1]
    return number
