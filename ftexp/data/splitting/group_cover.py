"""The search for a few groups of samples that bring every class into every split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# How many assignments are tried before the search gives up; the problem is NP-hard (it contains set splitting).
MAX_ASSIGNMENTS = 20_000


def find_cover(has_GC: npt.NDArray[np.bool_], groups: Sequence[int], splits: Sequence[int]) -> dict[int, int] | None:
    """Assign groups to splits so that every class is in every split, by depth-first search.

    The next class is the one with the fewest groups to spare, so that rare classes choose first. A branch ends when a
    class has fewer free groups than splits that lack it.

    Args:
        has_GC: whether a group has samples of a class.
        groups: all groups, in the order in which they are tried.
        splits: all splits, in the order in which they get a class.

    Returns:
        Group -> split, of the groups that are needed; None when there is no such assignment, or none was found in
        ``MAX_ASSIGNMENTS`` tries.
    """
    has_GC = has_GC.astype(np.int64)
    held_SC = np.zeros((len(splits), has_GC.shape[1]), dtype=np.int64)  # how many groups of a class a split has
    free_C = has_GC.sum(axis=0)  # how many groups of a class have no split yet
    cover: dict[int, int] = {}

    def choices() -> Iterator[tuple[int, int]]:
        """Groups for the split and class that come next; nothing when a class cannot be in every split any more."""
        lacking_C = (held_SC == 0).sum(axis=0)
        spare_C = np.where(lacking_C > 0, free_C - lacking_C, free_C.max(initial=0) + 1)
        rarest = int(np.argmin(spare_C))
        if spare_C[rarest] >= 0:
            split = next(split for split in splits if held_SC[split, rarest] == 0)
            yield from [(group, split) for group in groups if has_GC[group, rarest] and group not in cover]

    path = [choices()]
    tried = 0
    while path and tried < MAX_ASSIGNMENTS:
        group, split = next(path[-1], (None, None))
        if group is None or split is None:
            path.pop()
            if cover:
                last, its_split = cover.popitem()
                held_SC[its_split] -= has_GC[last]
                free_C += has_GC[last]
            continue
        tried += 1
        cover[group] = split
        held_SC[split] += has_GC[group]
        free_C -= has_GC[group]
        if (held_SC > 0).all():
            return cover
        path.append(choices())
    return None
