from __future__ import annotations

import tracemalloc
from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftexp.data.samples import SPLITS
from ftexp.data.splitting.cutting import allocate, cut_by_group, cut_by_time, cut_stratified
from ftexp.errors import DataError

FRACTIONS = {"val": 0.2, "test": 0.2}


def test_allocation_by_hand() -> None:
    assert allocate(10, {"val": 0.2, "test": 0.1}) == {"train": 7, "val": 2, "test": 1}
    assert allocate(3, {"val": 0.01, "test": 0.01}) == {"train": 1, "val": 1, "test": 1}
    assert allocate(4, {"val": 0.45, "test": 0.45}) == {"train": 1, "val": 2, "test": 1}


@given(st.integers(3, 5000), st.floats(0.01, 0.49), st.floats(0.01, 0.49))
def test_allocation_is_whole_complete_and_near_the_shares(n: int, val: float, test: float) -> None:
    counts = allocate(n, {"val": val, "test": test})
    assert sum(counts.values()) == n
    assert min(counts.values()) >= 1
    for split, share in {"val": val, "test": test}.items():
        assert abs(counts[split] - share * n) <= 1 or counts[split] == 1


def test_groups_by_hand() -> None:
    # Five groups of equal size and classes: one to val, one to test, three to train.
    labels = ["a", "b"] * 10
    groups = [str(i // 4) for i in range(20)]
    splits = cut_by_group(labels, groups, FRACTIONS, seed=0)
    assert Counter(splits) == {"train": 12, "val": 4, "test": 4}
    assert len({(group, split) for group, split in zip(groups, splits, strict=True)}) == 5


def test_seed_moves_groups() -> None:
    labels, groups = ["a", "b"] * 30, [str(i // 2) for i in range(60)]
    assert cut_by_group(labels, groups, FRACTIONS, 0) == cut_by_group(labels, groups, FRACTIONS, 0)
    assert cut_by_group(labels, groups, FRACTIONS, 0) != cut_by_group(labels, groups, FRACTIONS, 1)


def test_fewer_groups_than_splits() -> None:
    with pytest.raises(DataError, match=r"2 groups for 3 splits \(train, val, test\).*without data\.group_column"):
        cut_by_group(["a", "b"] * 4, ["x", "y"] * 4, FRACTIONS, 0)


def test_a_class_from_too_few_groups() -> None:
    labels, groups = ["a", "a", "a", "a", "b", "b"], ["1", "2", "3", "4", "1", "2"]
    with pytest.raises(DataError, match=r"cannot be in each of train, val, test.*: b \(2\)\."):
        cut_by_group(labels, groups, FRACTIONS, 0)


def test_one_large_group_and_small_ones() -> None:
    # If only the balance of classes counts, no group goes to test: each has a sixth of b, and test is to get 1/16.
    labels = ["a"] * 19 + ["b"] + ["a", "b"] * 5
    groups = ["0"] * 20 + [str(1 + i // 2) for i in range(10)]
    splits = cut_by_group(labels, groups, {"val": 0.25, "test": 0.0625}, seed=0)
    assert set(zip(labels, splits, strict=True)) == {(name, split) for name in "ab" for split in SPLITS}
    assert Counter(splits)["test"] == 2
    assert Counter(splits)["train"] >= 20


def test_classes_that_leave_one_way() -> None:
    # a is in groups 1 to 3 alone, b in 3 to 5, c in 5, 6 and 1.
    classes = {"1": "ac", "2": "a", "3": "ab", "4": "b", "5": "bc", "6": "c"}
    rows = [(label, group) for group, labels in classes.items() for label in labels]
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    splits = cut_by_group(labels, groups, FRACTIONS, seed=0)
    assert set(zip(labels, splits, strict=True)) == {(name, split) for name in "abc" for split in SPLITS}


def test_classes_that_leave_no_way() -> None:
    # a needs groups 1, 2 and 3 in three splits, b needs 1, 2 and 4: so 3 and 4 are in one split, which c rules out.
    rows = [(label, group) for label, members in (("a", "123"), ("b", "124"), ("c", "345")) for group in members]
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    with pytest.raises(DataError, match=r"No way to split by group was found that has every class in each of train"):
        cut_by_group(labels, groups, FRACTIONS, 0)


def test_many_classes_of_few_groups() -> None:
    groups_of = [(f"class {i % 300}", f"group {i // 2}") for i in range(1200)]
    labels, groups = [label for label, _ in groups_of], [group for _, group in groups_of]
    splits = cut_by_group(labels, groups, FRACTIONS, 0)
    assert len(set(zip(labels, splits, strict=True))) == 900


def test_a_group_goes_where_the_squared_error_of_all_classes_grows_least() -> None:
    """As a table of all groups by all classes gives it."""
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 300), rng.integers(0, 120, 300)
    names, group_of = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), 4))
    np.add.at(table, (group_of, labels), 1)
    order = np.random.default_rng(5).permutation(len(names))
    order = order[np.argsort(-table.sum(axis=1)[order], kind="stable")]
    shares, held, expected = np.array([0.6, 0.2, 0.2]), np.zeros((3, 4)), np.zeros(len(names), np.int64)
    for group in order:
        more = held + table[group] / table.sum(axis=0)
        before, after = (((of / shares[:, None] - 1) ** 2 * shares[:, None]).sum(axis=1) for of in (held, more))
        expected[group] = np.argmin(after - before)
        held[expected[group]] = more[expected[group]]
    found = cut_by_group([f"c{k}" for k in labels], [f"g{k:03d}" for k in groups], FRACTIONS, 5)
    assert found == [SPLITS[split] for split in expected[group_of]]


def test_many_groups_of_many_classes_take_little_memory() -> None:
    labels, groups = [f"c{i % 1000}" for i in range(4000)], [f"g{i}" for i in range(4000)]
    tracemalloc.start()
    splits = cut_by_group(labels, groups, {"val": 0.25}, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Counter(splits) == {"train": 3000, "val": 1000}
    assert peak < 8_000_000  # bytes; the table of all groups alone has 32 million


def test_a_rare_class_is_found_among_many_groups_in_little_memory() -> None:
    labels, groups = [f"c{max(i, 2) % 1000}" for i in range(4000)], [f"g{i}" for i in range(4000)]
    labels[:3] = ["rare"] * 3
    tracemalloc.start()
    splits = cut_by_group(labels, groups, {"val": 0.01, "test": 0.01}, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(splits[:3]) == ["test", "train", "val"]
    assert len(set(zip(labels, splits, strict=True))) == 3 * 1001
    assert peak < 16_000_000


def test_time_by_hand() -> None:
    times = np.array([5, 1, 2, 2, 3, 4, 9, 8, 7, 6], dtype=float)
    assert cut_by_time(times, FRACTIONS, 0) == [
        "train", "train", "train", "train", "train", "train", "test", "test", "val", "val",
    ]  # fmt: skip


def test_equal_times_stay_together() -> None:
    splits = cut_by_time(np.array([1.0] * 5 + [2.0] * 4 + [3.0]), FRACTIONS, 0)
    assert splits == ["train"] * 5 + ["val"] * 4 + ["test"]


def test_gap_leaves_samples_out() -> None:
    splits = cut_by_time(np.arange(10.0), FRACTIONS, gap=2)
    # train 0..5, then 6 lies within the gap, val 7, 8 within the gap, test 9.
    assert splits == ["train"] * 6 + [None, "val", None, "test"]


def test_gap_too_wide() -> None:
    with pytest.raises(DataError, match=r"data\.time_gap=5 leaves no samples for val"):
        cut_by_time(np.arange(10.0), FRACTIONS, gap=5)


def test_too_few_times() -> None:
    with pytest.raises(DataError, match="2 distinct times for 3 splits"):
        cut_by_time(np.array([1.0, 1.0, 2.0]), FRACTIONS, 0)


FRACTION = st.floats(0.05, 0.4)


@given(st.data(), FRACTION, FRACTION, st.integers(0, 99))
def test_group_cuts_of_random_tables(data: st.DataObject, val: float, test: float, seed: int) -> None:
    rows = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 12)), min_size=30, max_size=120))
    labels, groups = [label for label, _ in rows], [str(group) for _, group in rows]
    # Three groups of one class, and then three others of the other class, are in different splits: a cut exists.
    assume(min(len({g for lab, g in rows if lab == name}) for name in set(labels)) >= 6)
    splits = cut_by_group(labels, groups, {"val": val, "test": test}, seed)
    assert len(splits) == len(rows)
    split_of: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        split_of.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in split_of.values())
    assert {(lab, s) for lab, s in zip(labels, splits, strict=True)} == {
        (lab, s) for lab in set(labels) for s in ("train", "val", "test")
    }


@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=3, max_size=6), st.integers(0, 9))
def test_a_group_cut_is_found_exactly_if_there_is_one(classes: list[set[str]], seed: int) -> None:
    rows = [(label, str(group)) for group, found in enumerate(classes) for label in sorted(found)]
    labels, groups = [label for label, _ in rows], [group for _, group in rows]
    wanted = {(label, split) for label in set(labels) for split in SPLITS}
    exists = any(
        {(label, split) for found, split in zip(classes, cut, strict=True) for label in found} == wanted
        for cut in product(SPLITS, repeat=len(classes))
    )
    try:
        found = set(zip(labels, cut_by_group(labels, groups, {"val": 0.1, "test": 0.3}, seed), strict=True))
    except DataError:
        assert not exists
    else:
        assert found == wanted


@given(
    st.lists(st.integers(0, 40), min_size=3, max_size=80).filter(lambda times: len(set(times)) >= 3),
    FRACTION,
    FRACTION,
    st.integers(0, 5),
)
def test_time_cuts_of_random_tables(times: list[int], val: float, test: float, gap: int) -> None:
    try:
        splits = cut_by_time(np.array(times, dtype=float), {"val": val, "test": test}, gap)
    except DataError:
        assume(gap == 0)
        raise
    at = {name: [t for t, s in zip(times, splits, strict=True) if s == name] for name in ("train", "val", "test")}
    assert all(at.values())
    for earlier, later in (("train", "val"), ("val", "test")):
        assert max(at[earlier]) < min(at[later])
        assert max(at[earlier]) + gap <= min(at[later])
    if gap == 0:
        assert None not in splits


@given(st.lists(st.sampled_from("abc"), min_size=9, max_size=60), FRACTION, FRACTION, st.integers(0, 99))
def test_stratified_cuts_of_random_tables(labels: list[str], val: float, test: float, seed: int) -> None:
    assume(min(Counter(labels).values()) >= 3)
    fractions = {"val": val, "test": test}
    splits = cut_stratified(labels, fractions, seed)
    assert splits == cut_stratified(labels, fractions, seed)
    for name, count in Counter(labels).items():
        found = Counter(split for label, split in zip(labels, splits, strict=True) if label == name)
        assert found == allocate(count, fractions)
