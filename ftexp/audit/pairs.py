"""Which pairs of samples are searched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

# (row indices [R], column indices [C]) -> bool [R, C]: which pairs to search.
Wanted = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


def differ(
    number: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether two samples have different numbers (of a split, of a set): with its first argument set, a ``Wanted``."""
    different: npt.NDArray[np.bool_] = number[rows][:, None] != number[columns][None, :]
    return different
