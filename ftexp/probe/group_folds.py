"""Folds that keep the shares of the classes and that no group crosses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ftexp.data.splitting.group_table import GroupTable, Integers

Floats = npt.NDArray[np.float64]

# Groups whose counts of all classes are in memory at once.
GROUPS_AT_ONCE = 1_024
# Two spreads this near to each other are alike, as NumPy's isclose has it.
RELATIVE, ABSOLUTE = 1e-5, 1e-8


def group_folds(labels: Integers, groups: Integers, num_folds: int, seed: int) -> list[Integers]:
    """Cut samples into the folds of scikit-learn's ``StratifiedGroupKFold`` with ``shuffle``.

    Groups are put one after the other, the unevenest first, where the shares of the classes then differ least between
    the folds. A group moves the shares of its own classes alone, so only these are computed again: with 1,000 classes
    and 100,000 groups that takes seconds, and no table of groups by classes is in memory.

    Args:
        labels: int64 [N], numbers of the classes.
        groups: int64 [N].
        num_folds: at least 2, and at most the number of groups.
        seed: of the order of groups that are alike.

    Returns:
        The indices of the samples of each fold.
    """
    _, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    names, group_of = np.unique(groups, return_inverse=True)
    drawn = np.arange(len(names))
    np.random.RandomState(seed).shuffle(drawn)
    place_of = np.empty_like(drawn)
    place_of[drawn] = np.arange(len(drawn))
    place_of_sample = place_of[group_of]
    table = GroupTable.of(place_of_sample, class_of)
    fold_of, folds = np.empty(len(names), np.int64), _Folds(num_folds, sizes.astype(np.float64))
    for place in np.argsort(-_spreads(table), kind="stable").tolist():
        fold_of[place] = folds.add(*table.of_group(place))
    fold_of_sample = fold_of[place_of_sample]
    return [np.flatnonzero(fold_of_sample == fold) for fold in range(num_folds)]


class _Folds:
    """The samples that each fold has by now.

    Args:
        num_folds: F.
        sizes: float64 [C], samples of each class.
    """

    def __init__(self, num_folds: int, sizes: Floats) -> None:
        self._sizes = sizes
        self._counts = np.zeros((num_folds, len(sizes)))
        self._totals = [0] * num_folds
        self._own = np.arange(num_folds)
        # For each fold that may get the next group, how much the folds then differ in their shares of each class.
        self._spreads = np.zeros((num_folds, len(sizes)))

    def add(self, classes: Integers, counts: Integers) -> int:
        """Put a group with these counts of these classes where the folds then differ least; returns the fold.

        Of folds that are alike in this, the one with the fewest samples gets it.
        """
        now, num_folds = self._counts[:, classes], len(self._own)
        after = np.repeat(now[:, None], num_folds, axis=1)  # of each fold, if a fold gets it, of each class
        after[self._own, self._own] += counts
        spreads = np.std((after / self._sizes[classes]).reshape(num_folds, -1), axis=0).reshape(num_folds, -1)
        self._spreads[:, classes] = spreads
        fold = self._best(self._spreads.mean(axis=1).tolist())
        self._counts[fold, classes] += counts
        self._totals[fold] += int(counts.sum())
        self._spreads[:, classes] = spreads[fold]
        return fold

    def _best(self, spreads: list[float]) -> int:
        best = 0
        for fold, spread in enumerate(spreads[1:], 1):
            alike = abs(spread - spreads[best]) <= ABSOLUTE + RELATIVE * abs(spreads[best])
            if spread < spreads[best] or (alike and self._totals[fold] < self._totals[best]):
                best = fold
        return best


def _spreads(table: GroupTable) -> Floats:
    """How uneven the classes of each group are, float64 [G]: the standard deviation of their counts."""
    parts = []
    for first in range(0, table.num_groups, GROUPS_AT_ONCE):
        starts = table.starts[first : first + GROUPS_AT_ONCE + 1]
        own, dense = slice(starts[0], starts[-1]), np.zeros((len(starts) - 1, table.num_classes))
        dense[table.groups[own] - first, table.classes[own]] = table.counts[own]
        parts.append(np.std(dense, axis=1))
    return np.concatenate(parts)
