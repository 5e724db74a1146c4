"""Three ways to cut a list of samples: stratified, by group, by time. Pure functions of their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ftexp.data.samples import sorted_naturally
from ftexp.errors import DataError, listed

# Random orders of the groups tried before saying that no cut has every class in every split.
MAX_GROUP_ORDERS = 100
_NO_GROUPS = "groups do not count without data.group_column"


def cut_stratified(labels: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Every class gives each split its share, and at least one sample.

    Args:
        labels: class of each sample.
        fractions: split -> share of all samples; train gets the rest.

    Returns:
        The split of each sample.

    Raises:
        DataError: when a class has fewer samples than there are splits.
    """
    counts = Counter(labels)
    num_splits = 1 + len(fractions)
    few = [f"{name} ({counts[name]})" for name in sorted_naturally(counts) if counts[name] < num_splits]
    if few:
        raise DataError(
            f"Too few images to put one of each class into train, {' and '.join(fractions)}: {listed(few)}."
            f" Every class needs at least {num_splits}: add images or remove the class."
        )
    assigned = ["train"] * len(labels)
    rng = np.random.default_rng(seed)
    for name in sorted_naturally(counts):
        shuffled = rng.permutation([index for index, label in enumerate(labels) if label == name]).tolist()
        for split, count in allocate(len(shuffled), fractions).items():
            for _ in range(count):
                assigned[shuffled.pop()] = split
    return assigned


def allocate(num_samples: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that come closest to the shares, none of them 0, by largest remainders.

    Args:
        fractions: split -> share; train gets what is left of 1.

    Returns:
        Split -> count, train first; the counts add up to ``num_samples``, which must be at least their number.
    """
    exact = {split: share * num_samples for split, share in _shares(fractions).items()}
    counts = {split: max(1, int(value)) for split, value in exact.items()}
    while sum(counts.values()) < num_samples:
        counts[max(counts, key=lambda split: exact[split] - counts[split])] += 1
    while sum(counts.values()) > num_samples:
        counts[max((s for s in counts if counts[s] > 1), key=lambda split: counts[split] - exact[split])] -= 1
    return counts


def cut_by_group(labels: Sequence[str], groups: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """No group in two splits, and every class near its share in each split.

    Largest groups first, each to the split where it brings the class counts closest to their shares: the method of
    scikit-learn's StratifiedGroupKFold, for shares of any size.

    Returns:
        The split of each sample.

    Raises:
        DataError: when there are fewer groups than splits, or a class cannot be in every split.
    """
    splits = list(_shares(fractions))
    _check_groups(labels, groups, splits)
    _, class_of = np.unique(labels, return_inverse=True)
    names, group_of = np.unique(groups, return_inverse=True)
    counts_GK = np.zeros((len(names), int(class_of.max()) + 1))
    np.add.at(counts_GK, (group_of, class_of), 1)

    shares_S = np.array(list(_shares(fractions).values()))
    rng = np.random.default_rng(seed)
    for attempt in range(MAX_GROUP_ORDERS):
        order = rng.permutation(len(names))
        if attempt == 0:  # the order that balances best; the others only serve to get every class everywhere
            order = order[np.argsort(-counts_GK.sum(axis=1)[order], kind="stable")]
        split_of_group = _assign_groups(counts_GK, order, shares_S)
        held_SK = np.stack([counts_GK[split_of_group == number].sum(axis=0) for number in range(len(splits))])
        if (held_SK > 0).all():
            return [splits[split_of_group[group]] for group in group_of]
    raise DataError(
        f"No cut by group was found that has every class in each of {', '.join(splits)}, of {MAX_GROUP_ORDERS} tried:"
        " some classes come from too few groups. Add groups of the rare classes, or use larger fractions."
    )


def _assign_groups(
    counts_GK: npt.NDArray[np.float64], order: npt.NDArray[np.int64], shares_S: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """Greedy: the split whose class counts, as shares of each class and of its own target, suffer least."""
    totals_K = counts_GK.sum(axis=0)
    held_SK = np.zeros((len(shares_S), len(totals_K)))
    split_of_group = np.zeros(len(counts_GK), dtype=np.int64)
    for group in order:
        fraction_K = counts_GK[group] / totals_K
        before = ((held_SK / shares_S[:, None] - 1) ** 2 * shares_S[:, None]).sum(axis=1)
        after = (((held_SK + fraction_K) / shares_S[:, None] - 1) ** 2 * shares_S[:, None]).sum(axis=1)
        split = int(np.argmin(after - before))
        split_of_group[group] = split
        held_SK[split] += fraction_K
    return split_of_group


def _check_groups(labels: Sequence[str], groups: Sequence[str], splits: list[str]) -> None:
    num_groups = len(set(groups))
    if num_groups < len(splits):
        raise DataError(
            f"There are {num_groups} groups for {len(splits)} splits ({', '.join(splits)}), and a group cannot be in"
            f" two. It takes at least {len(splits)} groups; {_NO_GROUPS}."
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
    """Train strictly before val strictly before test.

    Args:
        times: of each sample, in any unit.
        gap: at least this much lies between the last sample of a split and the first of the next, in the same unit.

    Returns:
        The split of each sample; None for those that fall into a gap.

    Raises:
        DataError: when there are too few distinct times, or a gap leaves a split empty.
    """
    moments, counts = np.unique(times, return_counts=True)
    shares = _shares(fractions)
    if len(moments) < len(shares):
        raise DataError(
            f"There are {len(moments)} distinct times for {len(shares)} splits ({', '.join(shares)}), one strictly"
            f" before the next. It takes at least {len(shares)}; data.split=stratified ignores time."
        )
    # Samples up to and including each moment: the places where a cut separates no two of the same time.
    cumulative = np.cumsum(counts)
    assigned: list[str | None] = [None] * len(times)
    first, share_so_far, earliest = 0, 0.0, -np.inf
    for position, (split, share) in enumerate(shares.items()):
        share_so_far += share
        # Leave at least one moment for this split and for each one after it.
        last_allowed = len(moments) - (len(shares) - position)
        candidates = np.arange(first, last_allowed + 1)
        last = int(candidates[np.argmin(np.abs(cumulative[candidates] - share_so_far * len(times)))])
        inside = (times >= moments[first]) & (times <= moments[last]) & (times >= earliest)
        if not inside.any():
            raise DataError(
                f"data.time_gap={gap:g} leaves nothing for {split}: all its samples lie within the gap after the split"
                " before it. Use a smaller gap or a larger fraction."
            )
        for index in np.flatnonzero(inside):
            assigned[index] = split
        first, earliest = last + 1, float(times[inside].max()) + gap
    return assigned


def _shares(fractions: Mapping[str, float]) -> dict[str, float]:
    return {"train": 1 - sum(fractions.values()), **fractions}
