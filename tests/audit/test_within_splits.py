from __future__ import annotations

import numpy as np
from photographs import PLANTED, fingerprints_of, photograph

from ftexp.audit.duplicates import near_duplicates
from ftexp.audit.within_splits import describe_repeats, find_repeats, find_two_labels
from ftexp.data.samples import Sample


def sample(path: str, image: object, label: str = "cat", split: str = "train") -> Sample:
    return Sample(path, label, split, pixels=np.asarray(image))


def test_copies_in_one_split_are_counted_with_the_largest_set_and_what_follows() -> None:
    burst = [sample(f"burst{number}", photograph(1)) for number in range(3)]
    burst += [sample("small", PLANTED["half size"](photograph(1)))]
    samples = [*burst, *(sample(f"{seed}", photograph(seed)) for seed in range(2, 6))]
    samples += [sample("a", photograph(9), split="val"), sample("b", photograph(9), split="val")]
    samples += [sample("c", photograph(1), split="test"), sample("d", photograph(8), split="test")]
    prints = fingerprints_of(samples)
    across, within = near_duplicates(samples, prints)
    assert all(samples[i].split == samples[j].split for i, j, _ in within.near)
    assert all(samples[i].split != samples[j].split for i, j, _ in across.near)
    listed = find_repeats(samples, prints, within.near)
    exact = [(one.split_a, one.path_a, one.path_b) for one in listed if one.kind == "repeat"]
    assert exact == [("train", "burst0", "burst1"), ("train", "burst0", "burst2"), ("val", "a", "b")]
    near = [one for one in listed if one.kind == "near_repeat"]
    assert {one.path_b for one in near} | {one.path_a for one in near} >= {"small"}
    assert all(one.split_a == one.split_b and one.severity == "warn" for one in listed)
    assert describe_repeats(samples, prints, within.near) == [
        "train: 3 of 8 images are copies of others in this split; burst0 occurs 4 times. Training sees these pictures"
        " more often than others.",
        "val: 1 of 2 images are copies of others in this split; a occurs 2 times. These pictures count several times in"
        " the validation scores, so their intervals are too narrow.",
    ]


def test_repeats_are_listed_in_the_order_of_the_images() -> None:
    samples = [sample(name, photograph(seed)) for name, seed in (("a", 1), ("b", 2), ("b2", 2), ("a2", 1))]
    found = find_repeats(samples, fingerprints_of(samples), [])
    assert [(one.path_a, one.path_b) for one in found] == [("b", "b2"), ("a", "a2")]


def test_two_labels_in_train_and_val_but_the_test_labels_stay_unseen() -> None:
    def grey(path: str, level: int, label: str, split: str) -> Sample:
        return sample(path, np.full((8, 8, 3), level, np.uint8), label, split)

    samples = [
        grey("0", 10, "owl", "test"),
        grey("1", 10, "cat", "train"),
        grey("2", 10, "dog", "train"),
        grey("3", 10, "cat", "val"),
        grey("4", 20, "cat", "train"),
        grey("5", 20, "dog", "test"),
    ]
    found = find_two_labels(samples, fingerprints_of(samples), [])
    assert [(f.kind, f.severity, f.path_a, f.path_b) for f in found] == [("two_labels", "warn", "1", "2")]


def test_two_labels_of_near_copies() -> None:
    copy = PLANTED["flipped"](photograph(1))
    for split, number in (("train", 1), ("val", 1), ("test", 0)):
        samples = [sample("1", photograph(1)), sample("2", copy, "dog", split), sample("3", photograph(2), "dog")]
        prints = fingerprints_of(samples)
        near = [pair for found in near_duplicates(samples, prints) for pair in found.near]
        found = find_two_labels(samples, prints, near)
        assert [(f.path_a, f.path_b) for f in found] == [("1", "2")] * number
        assert all(0.88 <= f.score < 1 for f in found)
