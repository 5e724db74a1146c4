"""How many samples of each class every group has, without the zeros: of a million groups nearly all have one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GroupTable:
    """The classes of the groups, one group after the other.

    Attributes:
        groups: int64 [P], rising.
        classes: int64 [P], those that the group has; rising within a group.
        counts: int64 [P], samples of this class in this group, at least 1.
        starts: int64 [G + 1], where each group begins, and the end.
        num_classes: C.
    """

    groups: Integers
    classes: Integers
    counts: Integers
    starts: Integers
    num_classes: int

    @classmethod
    def of(cls, groups: Integers, classes: Integers) -> GroupTable:
        """Count samples by their group and class, int64 [N] each; every number up to the largest group occurs."""
        num_classes = int(classes.max()) + 1
        cells, counts = np.unique(groups * num_classes + classes, return_counts=True)
        of_group, of_class = np.divmod(cells, num_classes)
        starts = np.searchsorted(of_group, np.arange(int(groups.max()) + 2))
        return cls(of_group, of_class, counts, starts, num_classes)

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return len(self.starts) - 1

    def of_group(self, group: int) -> tuple[Integers, Integers]:
        """The classes of a group and how many samples it has of each, int64 [K]."""
        own = slice(self.starts[group], self.starts[group + 1])
        return self.classes[own], self.counts[own]
