"""The confusion matrix for the page: every cell that is not zero, and the pairs of classes that are confused most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# More classes are too many for a page: those with the most errors are drawn.
MAX_CLASSES = 100
MAX_PAIRS = 20
# Up to this many classes the counts stand in the cells.
MAX_WITH_COUNTS = 25
MAX_NAME = 22
# A letter's width over the size of its font.
LETTER = 0.6


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell in the SVG's units. ``strength``: 0 to 1, how much colour it gets; ``count``: images."""

    x: int
    y: int
    truth: str
    predicted: str
    count: int
    share: float
    strength: float
    right: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """Everything in the SVG's units.

    Attributes:
        names: short ones of the classes that are drawn, in order.
        left_out: classes that are not drawn.
        size: of a cell; ``margin``: of the names; ``font``: of their letters.
    """

    names: list[str]
    cells: list[Cell]
    left_out: int
    size: int
    margin: int
    font: int
    with_counts: bool

    @property
    def side(self) -> int:
        """Of all cells."""
        return self.size * len(self.names)


@dataclass(frozen=True, slots=True)
class Pair:
    """How often one class was taken for another."""

    truth: str
    predicted: str
    count: int
    share: float


def draw_matrix(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> Matrix:
    """Lay the matrix out.

    Args:
        confusion: [C, C], the truth in rows.
        classes: C names.
    """
    errors = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    shown = np.sort(np.argsort(-errors, kind="stable")[:MAX_CLASSES]) if len(classes) > MAX_CLASSES else None
    numbers = np.arange(len(classes)) if shown is None else shown
    totals = np.maximum(confusion.sum(axis=1), 1)
    size = int(np.clip(680 // max(len(numbers), 1), 11, 44))
    font = min(size - 1, 12)
    names = [_short(classes[number]) for number in numbers]
    part = confusion[np.ix_(numbers, numbers)]
    cells = [
        _cell(int(row), int(column), int(part[row, column]), numbers, totals, classes, size)
        for row, column in zip(*np.nonzero(part), strict=True)
    ]
    margin = max(round(max(map(len, names), default=0) * font * LETTER) + 26, 90)
    return Matrix(
        names, cells, len(classes) - len(numbers), size, margin, font, with_counts=len(numbers) <= MAX_WITH_COUNTS
    )


def most_confused(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> list[Pair]:
    """The pairs with the most images, most first."""
    errors = confusion - np.diag(np.diag(confusion))
    rows, columns = np.nonzero(errors)
    counts = errors[rows, columns]
    totals = confusion.sum(axis=1)
    return [
        Pair(
            classes[rows[i]],
            classes[columns[i]],
            int(counts[i]),
            float(counts[i] / totals[rows[i]]),
        )
        for i in np.argsort(-counts, kind="stable")[:MAX_PAIRS]
    ]


def _cell(
    row: int,
    column: int,
    count: int,
    numbers: npt.NDArray[np.int64],
    totals: npt.NDArray[np.int64],
    classes: Sequence[str],
    size: int,
) -> Cell:
    truth, predicted = int(numbers[row]), int(numbers[column])
    share = count / int(totals[truth])
    # The square root, so that an error in forty is still seen beside a diagonal near 1.
    strength = round(0.12 + 0.88 * share**0.5, 2)
    same = truth == predicted
    return Cell(column * size, row * size, classes[truth], classes[predicted], count, share, strength, same)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
