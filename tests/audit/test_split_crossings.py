from __future__ import annotations

import numpy as np
from photographs import fingerprints_of

from ftexp.audit.cache import FingerprintCache
from ftexp.audit.split_crossings import find_future_in_training, find_shared_groups, find_two_labels
from ftexp.data.samples import Sample


def test_groups_in_two_splits() -> None:
    samples = [
        Sample("1", "a", "train", "ann"),
        Sample("2", "a", "train", "bob"),
        Sample("3", "a", "val", "bob"),
        Sample("4", "a", "test", "bob"),
        Sample("5", "a", "test"),
        Sample("6", "a", "val"),
    ]
    found = find_shared_groups(samples)
    assert [(f.kind, f.split_a, f.path_a, f.split_b, f.path_b) for f in found] == [
        ("group", "train", "2", "val", "3"),
        ("group", "train", "2", "test", "4"),
        ("group", "val", "3", "test", "4"),
    ]


def test_time_in_order_and_not() -> None:
    def at(split: str, *days: int) -> list[Sample]:
        return [Sample(f"{split}{day}", "a", split, time=f"2020-01-{day:02d}") for day in days]

    assert find_future_in_training(at("train", 1, 2) + at("val", 3) + at("test", 4, 9)) == []
    found = find_future_in_training(at("train", 1, 2, 5, 6) + at("val", 4, 7) + at("test", 8, 9))
    assert [(f.split_a, f.path_a, f.split_b, f.path_b, f.score) for f in found] == [
        ("train", "train6", "val", "val4", 0.5)
    ]


def test_the_same_moment_is_not_before() -> None:
    samples = [Sample("a", "x", "train", time="1"), Sample("b", "x", "val", time="1"), Sample("c", "x", "val")]
    assert len(find_future_in_training(samples)) == 1


def test_two_labels_in_train_and_val_but_the_test_labels_stay_unseen() -> None:
    def grey(path: str, level: int, label: str, split: str) -> Sample:
        return Sample(path, label, split, pixels=np.full((8, 8, 3), level, np.uint8))

    samples = [
        grey("1", 10, "cat", "train"),
        grey("2", 10, "dog", "train"),
        grey("3", 10, "cat", "val"),
        grey("4", 20, "cat", "train"),
        grey("5", 20, "dog", "test"),
    ]
    found = find_two_labels(samples, fingerprints_of(samples, None, FingerprintCache(None), 1))
    assert [(f.kind, f.severity, f.path_a, f.path_b) for f in found] == [("two_labels", "warn", "1", "2")]
