from __future__ import annotations

from ftexp.audit.split_crossings import find_future_in_training, find_shared_groups
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
