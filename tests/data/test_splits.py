from __future__ import annotations

import csv
import logging
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftexp.config import DataConfig
from ftexp.data.samples import Sample
from ftexp.data.splits import Splits, allocate, assign_splits, make_splits, write_splits
from ftexp.errors import DataError

CONFIG = DataConfig(source="digits", val_fraction=0.2, test_fraction=0.1)


def samples_of(counts: dict[str, int], split: str | None = None) -> list[Sample]:
    return [Sample(f"{split or ''}/{name}/{i}", name, split) for name, count in counts.items() for i in range(count)]


def paths(splits: Splits) -> dict[str, list[str]]:
    parts = {"train": splits.train, "val": splits.val, "test": splits.test.open()}
    return {split: [sample.path for sample in part] for split, part in parts.items()}


def test_stratified_counts_by_hand() -> None:
    splits = make_splits(samples_of({"a": 20, "b": 10}), CONFIG)
    assert Counter(s.label for s in splits.train) == {"a": 14, "b": 7}
    assert Counter(s.label for s in splits.val) == {"a": 4, "b": 2}
    assert splits.test.num_samples == 3
    assert {s.split for s in splits.train} == {"train"}
    assert splits.class_to_idx == {"a": 0, "b": 1}


def test_order_of_the_files_does_not_matter_but_the_seed_does() -> None:
    samples = samples_of({"a": 30, "b": 30})
    shuffled = samples.copy()
    random.Random(1).shuffle(shuffled)
    first = paths(make_splits(samples, CONFIG))
    assert paths(make_splits(shuffled, CONFIG)) == first
    other = DataConfig(source="digits", val_fraction=0.2, test_fraction=0.1, seed=1)
    assert paths(make_splits(samples, other)) != first


def test_classes_are_numbered_once_in_natural_order() -> None:
    splits = make_splits(samples_of({"c10": 5, "c9": 5, "c1": 5}), CONFIG)
    assert splits.classes == ("c1", "c9", "c10")


def test_given_splits_are_kept() -> None:
    counts = {"a": 3, "b": 2}
    samples = samples_of(counts, "train") + samples_of(counts, "val") + samples_of(counts, "test")
    splits = make_splits(samples, CONFIG)
    assert all(path.startswith(f"{split}/") for split, group in paths(splits).items() for path in group)


def test_a_missing_test_split_is_cut_out_of_train_and_said(caplog: pytest.LogCaptureFixture) -> None:
    samples = samples_of({"a": 20, "b": 20}, "train") + samples_of({"a": 5, "b": 5}, "val")
    with caplog.at_level(logging.INFO):
        splits = make_splits(samples, CONFIG)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (36, 10, 4)
    assert "no test split: 0.1 of train is set aside" in caplog.text


def test_a_missing_val_split_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        splits = make_splits(samples_of({"a": 20, "b": 20}, "train"), CONFIG)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (28, 8, 4)
    assert "no val split: 0.2 of train" in caplog.text


def test_one_class() -> None:
    with pytest.raises(DataError, match="only one class, 'a'"):
        make_splits(samples_of({"a": 20}), CONFIG)


def test_no_samples() -> None:
    with pytest.raises(DataError, match="holds no samples"):
        make_splits([], CONFIG)


def test_too_few_images_of_a_class() -> None:
    with pytest.raises(DataError, match=r"Too few images.*train, val and test: b \(2\)\. Every class needs at least 3"):
        make_splits(samples_of({"a": 20, "b": 2}), CONFIG)


def test_a_class_that_train_lacks() -> None:
    samples = samples_of({"a": 5, "b": 5}, "train") + samples_of({"a": 5, "z": 5}, "val")
    with pytest.raises(DataError, match=r"val holds classes that train lacks: z\."):
        make_splits(samples, CONFIG)


def test_a_class_that_only_val_lacks_is_a_warning_and_shifts_no_number(caplog: pytest.LogCaptureFixture) -> None:
    samples = samples_of({"a": 5, "b": 5, "c": 5}, "train") + samples_of({"a": 5, "c": 5}, "val")
    splits = make_splits(samples, CONFIG)
    assert splits.class_to_idx == {"a": 0, "b": 1, "c": 2}
    assert "No image of b in val" in caplog.text


def test_some_with_a_split_and_some_without() -> None:
    with pytest.raises(DataError, match="give all or none"):
        make_splits(samples_of({"a": 5, "b": 5}, "train") + samples_of({"a": 5}), CONFIG)


def test_no_train() -> None:
    with pytest.raises(DataError, match="brings the splits val but no train"):
        make_splits(samples_of({"a": 5, "b": 5}, "val"), CONFIG)


def test_splits_csv_lists_every_sample(tmp_path: Path) -> None:
    samples = [Sample("p,1", "a", "train", "ann", "2020-01-01"), Sample("2", "b", "train"), Sample("3", "a", "val")]
    samples += [Sample("4", "b", "val"), Sample("5", "a", "test", "bob")]
    write_splits(tmp_path / "splits.csv", make_splits(samples, CONFIG))
    with (tmp_path / "splits.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "split", "group", "time"]
    assert ["p,1", "a", "train", "ann", "2020-01-01"] in rows
    assert ["5", "a", "test", "bob", ""] in rows
    assert len(rows) == 6


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


@given(
    st.lists(st.sampled_from("abc"), min_size=20, max_size=60).filter(
        lambda labels: len(set(labels)) > 1 and min(Counter(labels).values()) >= 3
    ),
    st.integers(0, 1000),
)
def test_splits_are_disjoint_and_complete(labels: list[str], seed: int) -> None:
    samples = [Sample(str(i), label) for i, label in enumerate(labels)]
    assigned = assign_splits(samples, DataConfig(source="digits", seed=seed))
    assert sorted(s.path for s in assigned) == sorted(s.path for s in samples)
    for split in ("train", "val", "test"):
        assert {s.label for s in assigned if s.split == split} == set(labels)
