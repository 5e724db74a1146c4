"""Three ways to split a list of samples: stratified, by group, by time. All are pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ftexp.data.samples import sorted_naturally
from ftexp.data.splitting.group_cover import find_cover
from ftexp.data.splitting.group_table import GroupTable, Integers
from ftexp.errors import DataError, listed

_NO_GROUPS = "without data.group_column groups are ignored"


def cut_stratified(labels: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Split every class by the same fractions, with at least one sample of each class in each split.

    Args:
        labels: the class of each sample.
        fractions: split -> fraction of all samples; train gets the rest.
        seed: the seed of the random choice.

    Returns:
        The split of each sample.

    Raises:
        DataError: when a class has fewer samples than there are splits.
    """
    members: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    num_splits, names = 1 + len(fractions), sorted_naturally(members)
    few = [f"{name} ({len(members[name])})" for name in names if len(members[name]) < num_splits]
    if few:
        raise DataError(
            f"Too few images to put one of each class into train, {' and '.join(fractions)}: {listed(few)}."
            f" Every class needs at least {num_splits}: add images or remove the class."
        )
    assigned = ["train"] * len(labels)
    rng = np.random.default_rng(seed)
    for name in names:
        shuffled = rng.permutation(members[name]).tolist()
        for split, count in allocate(len(shuffled), fractions).items():
            for _ in range(count):
                assigned[shuffled.pop()] = split
    return assigned


def allocate(num_samples: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Round fractions of a number of samples to whole numbers above 0, by the largest remainder method.

    Args:
        num_samples: the number of samples; at least the number of splits.
        fractions: split -> fraction; train gets the rest.

    Returns:
        Split -> count, train first; the counts add up to ``num_samples``.
    """
    exact = {split: share * num_samples for split, share in _shares(fractions).items()}
    counts = {split: max(1, int(value)) for split, value in exact.items()}
    while sum(counts.values()) < num_samples:
        counts[max(counts, key=lambda split: exact[split] - counts[split])] += 1
    while sum(counts.values()) > num_samples:
        counts[max((s for s in counts if counts[s] > 1), key=lambda split: counts[split] - exact[split])] -= 1
    return counts


def cut_by_group(labels: Sequence[str], groups: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Split so that no group is in two splits, and each class is close to its fractions.

    Groups are assigned from the largest to the smallest, each to the split where it brings the class counts closest to
    their targets: the method of scikit-learn's StratifiedGroupKFold, generalised to any fractions. If a class is then
    missing in a split, a search first assigns small groups so that every class is in every split, and the rest follows
    in the same way.

    Args:
        labels: the class of each sample.
        groups: the group of each sample.
        fractions: split -> fraction of all samples; train gets the rest.
        seed: the seed of the order of groups of the same size.

    Returns:
        The split of each sample.

    Raises:
        DataError: when there are fewer groups than splits, or a class cannot be in every split.
    """
    splits = list(_shares(fractions))
    _check_groups(labels, groups, splits)
    group_of = _numbered(groups)
    table = GroupTable.of(group_of, _numbered(labels))

    shares_S = np.array(list(_shares(fractions).values()))
    order = np.random.default_rng(seed).permutation(table.num_groups)
    order = order[np.argsort(-np.bincount(group_of)[order], kind="stable")]
    split_of_group = _assign_groups(table, order, shares_S, {})
    found_SC = np.zeros((len(splits), table.num_classes), dtype=bool)
    found_SC[split_of_group[table.groups], table.classes] = True
    if not found_SC.all():
        # Small splits and small groups first: they change the fractions least.
        first = find_cover(table, order[::-1], np.argsort(shares_S, kind="stable").tolist())
        if first is None:
            raise DataError(
                f"No way to split by group was found that has every class in each of {', '.join(splits)}: some classes"
                f" come from too few groups. Add groups of the rare classes or remove them; {_NO_GROUPS}."
            )
        split_of_group = _assign_groups(table, order, shares_S, first)
    return [splits[split] for split in split_of_group[group_of].tolist()]


def _numbered(names: Sequence[str]) -> Integers:
    """The number of each name in their sorted order, int64 [N]; an array of long paths would take GiB."""
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.fromiter((numbers[name] for name in names), np.int64, len(names))


def _assign_groups(
    table: GroupTable, order: Integers, shares_S: npt.NDArray[np.float64], assigned: Mapping[int, int]
) -> Integers:
    """Assign each group to the split where it increases the squared error of the class counts least (greedily).

    Args:
        table: the number of samples by group and class.
        order: the groups in the order of assignment.
        shares_S: the fraction of each split.
        assigned: group -> split, of groups whose split is settled.
    """
    sizes_C = np.bincount(table.classes, table.counts, table.num_classes)
    shares_S1 = shares_S[:, None]
    held_SC = np.zeros((len(shares_S), table.num_classes))
    split_of_group = np.zeros(table.num_groups, dtype=np.int64)
    for group, split in assigned.items():
        classes, counts = table.of_group(group)
        split_of_group[group] = split
        held_SC[split, classes] += counts / sizes_C[classes]
    before_SC = (held_SC / shares_S1 - 1) ** 2 * shares_S1
    after_SC = before_SC.copy()
    for group in order.tolist():
        if group in assigned:
            continue
        classes, counts = table.of_group(group)
        more = held_SC[:, classes] + counts / sizes_C[classes]
        after_SC[:, classes] = (more / shares_S1 - 1) ** 2 * shares_S1  # the errors of the other classes stay
        split = int(np.argmin(after_SC.sum(axis=1) - before_SC.sum(axis=1)))
        split_of_group[group] = split
        held_SC[split, classes] = more[split]
        before_SC[split, classes] = after_SC[split, classes]
        after_SC[:, classes] = before_SC[:, classes]
    return split_of_group


def _check_groups(labels: Sequence[str], groups: Sequence[str], splits: list[str]) -> None:
    num_groups = len(set(groups))
    if num_groups < len(splits):
        raise DataError(
            f"There are {num_groups} groups for {len(splits)} splits ({', '.join(splits)}), and a group cannot be in"
            f" two splits. At least {len(splits)} groups are needed; {_NO_GROUPS}."
        )
    groups_of: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        groups_of.setdefault(label, set()).add(group)
    few = [
        f"{name} ({len(groups_of[name])})" for name in sorted_naturally(groups_of) if len(groups_of[name]) < len(splits)
    ]
    if few:
        raise DataError(
            f"These classes come from fewer groups than there are splits, so they cannot be in each of"
            f" {', '.join(splits)} without a group being in two: {listed(few)}. Add groups of these classes or"
            f" remove the classes; {_NO_GROUPS}."
        )


def cut_by_time(times: npt.NDArray[np.float64], fractions: Mapping[str, float], gap: float) -> list[str | None]:
    """Split so that all times in train are before those in val, and all times in val before those in test.

    Args:
        times: the time of each sample, in any unit.
        fractions: split -> fraction of all samples; train gets the rest.
        gap: the least time between the last sample of a split and the first of the next one, in the same unit.

    Returns:
        The split of each sample; None for samples in a gap.

    Raises:
        DataError: when there are too few distinct times, or a gap leaves a split empty.
    """
    moments, counts = np.unique(times, return_counts=True)
    shares = _shares(fractions)
    if len(moments) < len(shares):
        raise DataError(
            f"There are {len(moments)} distinct times for {len(shares)} splits ({', '.join(shares)}), and no two splits"
            f" may share a time. At least {len(shares)} are needed; data.split=stratified ignores time."
        )
    # The number of samples up to and including each time; splitting there separates no samples of the same time.
    cumulative = np.cumsum(counts)
    assigned: list[str | None] = [None] * len(times)
    first, share_so_far, earliest = 0, 0.0, -np.inf
    for position, (split, share) in enumerate(shares.items()):
        share_so_far += share
        # Leave at least one time for this split and for each of the later ones.
        last_allowed = len(moments) - (len(shares) - position)
        candidates = np.arange(first, last_allowed + 1)
        last = int(candidates[np.argmin(np.abs(cumulative[candidates] - share_so_far * len(times)))])
        inside = (times >= moments[first]) & (times <= moments[last]) & (times >= earliest)
        if not inside.any():
            raise DataError(
                f"data.time_gap={gap:g} leaves no samples for {split}: all of them are in the gap after the previous"
                " split. Use a smaller gap or a larger fraction."
            )
        for index in np.flatnonzero(inside):
            assigned[index] = split
        first, earliest = last + 1, float(times[inside].max()) + gap
    return assigned


def _shares(fractions: Mapping[str, float]) -> dict[str, float]:
    return {"train": 1 - sum(fractions.values()), **fractions}
