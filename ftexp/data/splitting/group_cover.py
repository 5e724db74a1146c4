"""The search for a few groups of samples that bring every class into every split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ftexp.data.splitting.group_table import GroupTable, Integers

# How many assignments are tried before the search gives up; the problem is NP-hard (it contains set splitting).
MAX_ASSIGNMENTS = 20_000


def find_cover(table: GroupTable, groups: Integers, splits: Sequence[int]) -> dict[int, int] | None:
    """Assign groups to splits so that every class is in every split, by depth-first search.

    The next class is the one with the fewest groups to spare, so that rare classes choose first. A branch ends when a
    class has fewer free groups than splits that lack it.

    Args:
        table: the classes of the groups.
        groups: int64 [G], all groups, in the order in which they are tried.
        splits: all splits, in the order in which they get a class.

    Returns:
        Group -> split, of the groups that are needed; None when there is no such assignment, or none was found in
        ``MAX_ASSIGNMENTS`` tries.
    """
    held_SC = np.zeros((len(splits), table.num_classes), dtype=np.int64)  # how many groups of a class a split has
    free_C = np.bincount(table.classes, minlength=table.num_classes)  # how many groups of a class have no split yet
    members = _by_class(table, groups)
    cover: dict[int, int] = {}

    def rarest_class() -> int | None:
        """The class that comes next; None when a class cannot be in every split any more."""
        lacking_C = (held_SC == 0).sum(axis=0)
        spare_C = np.where(lacking_C > 0, free_C - lacking_C, free_C.max(initial=0) + 1)
        rarest = int(np.argmin(spare_C))
        return rarest if spare_C[rarest] >= 0 else None

    def choices() -> Iterator[tuple[int, int]]:
        """Groups for the split and class that come next."""
        if (rarest := rarest_class()) is not None:
            split = next(split for split in splits if held_SC[split, rarest] == 0)
            yield from ((int(group), split) for group in members[rarest] if group not in cover)

    path = [choices()]
    tried = 0
    while path and tried < MAX_ASSIGNMENTS:
        group, split = next(path[-1], (None, None))
        if group is None or split is None:
            path.pop()
            if cover:
                last, its_split = cover.popitem()
                held_SC[its_split, table.of_group(last)[0]] -= 1
                free_C[table.of_group(last)[0]] += 1
            continue
        tried += 1
        cover[group] = split
        held_SC[split, table.of_group(group)[0]] += 1
        free_C[table.of_group(group)[0]] -= 1
        if (held_SC > 0).all():
            return cover
        path.append(choices())
    return None


def _by_class(table: GroupTable, groups: Integers) -> list[Integers]:
    """The groups that have a class, of each class, in this order of all groups."""
    rank = np.empty(table.num_groups, np.int64)
    rank[groups] = np.arange(len(groups))
    order = np.lexsort((rank[table.groups], table.classes))
    return np.split(table.groups[order], np.cumsum(np.bincount(table.classes, minlength=table.num_classes))[:-1])
