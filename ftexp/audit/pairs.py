"""Which pairs of samples are searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ftexp.audit.fingerprints import Fingerprint

# (row indices [R], column indices [C]) -> bool [R, C]: which pairs to search.
Wanted = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


# Places [R] -> bool [R, M]: which of the M images of a search can be neighbours of those at these places.
Allowed = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


def pictures_apart(prints: Sequence[Fingerprint], numbers: npt.NDArray[np.int64], wanted: Wanted) -> Allowed:
    """The wanted pairs whose pixels are not equal, in a search among the images with these numbers, int64 [M]."""
    _, picture = np.unique([prints[number].pixels for number in numbers], return_inverse=True)

    def allowed(places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        found = wanted(numbers[places], numbers)
        found &= picture[places][:, None] != picture[None, :]
        return found

    return allowed


def is_equal(
    number: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether two samples have equal numbers; a ``Wanted`` like ``differ``."""
    equal: npt.NDArray[np.bool_] = number[rows][:, None] == number[columns][None, :]
    return equal


def differ(
    number: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether two samples have different numbers (of a split, of a set): with its first argument set, a ``Wanted``."""
    different: npt.NDArray[np.bool_] = number[rows][:, None] != number[columns][None, :]
    return different
