from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from photographs import PLANTED, find_near_duplicates, fingerprints_of, photograph

from ftexp.audit.aligner import Effort
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.duplicates import find_same_images
from ftexp.audit.fingerprint_table import Fingerprints
from ftexp.audit.near_duplicates import NearDuplicates
from ftexp.audit.pairs import components, differ
from ftexp.audit.ties import tie_duplicates
from ftexp.data.samples import Sample
from ftexp.data.sources.digits import read_digits


def sample(path: str, image: object, split: str = "train") -> Sample:
    return Sample(path, "a", split, pixels=np.asarray(image))


def prints_of(samples: list[Sample]) -> Fingerprints:
    return fingerprints_of(samples, None, FingerprintCache(None), 1)


STRANGERS = [sample(f"stranger{seed}", photograph(seed), "train" if seed % 2 else "val") for seed in range(100, 130)]


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_copies_are_found_and_strangers_are_not(kind: str) -> None:
    pairs = [
        [
            sample(f"original{seed}", photograph(seed), "train"),
            sample(f"copy{seed}", PLANTED[kind](photograph(seed)), "test"),
        ]
        for seed in range(8)
    ]
    samples = [*STRANGERS, *(one for pair in pairs for one in pair)]
    found = find_near_duplicates(samples, prints_of(samples))
    assert {(f.path_a, f.path_b) for f in found} == {(f"original{seed}", f"copy{seed}") for seed in range(8)}
    assert {(f.kind, f.severity, f.split_a, f.split_b) for f in found} == {("near_duplicate", "fail", "train", "test")}
    assert all(0.88 <= f.score <= 1 for f in found)


def test_copies_within_a_split_are_no_leak() -> None:
    samples = [sample("a", photograph(1)), sample("b", PLANTED["jpeg 50"](photograph(1))), *STRANGERS]
    assert find_near_duplicates(samples, prints_of(samples)) == []


def test_same_pixels_in_two_splits() -> None:
    image = photograph(1)
    samples = [sample("a", image), sample("b", image), sample("c", image, "val"), sample("d", image, "test")]
    samples += STRANGERS[:4]
    found = find_same_images(samples, prints_of(samples))
    assert [(f.split_a, f.path_a, f.split_b, f.path_b) for f in found] == [
        ("train", "a", "val", "c"),
        ("train", "a", "test", "d"),
        ("train", "b", "val", "c"),
        ("train", "b", "test", "d"),
        ("val", "c", "test", "d"),
    ]
    # Equal pixels are reported once, as the same image.
    assert find_near_duplicates(samples, prints_of(samples)) == []


def test_digits_hold_neither() -> None:
    digits = [Sample(s.path, s.label, ("train", "val")[i % 2], pixels=s.pixels) for i, s in enumerate(read_digits())]
    prints = prints_of(digits[:600])
    assert find_same_images(digits[:600], prints) == []
    assert find_near_duplicates(digits[:600], prints) == []


def test_a_flat_image_matches_nothing() -> None:
    flat = [
        sample(f"grey{level}", np.full((64, 64, 3), level, np.uint8), split)
        for level, split in ((9, "train"), (99, "val"))
    ]
    assert find_near_duplicates([*flat, *STRANGERS], prints_of([*flat, *STRANGERS])) == []


def test_ties_gather_all_copies_of_an_image() -> None:
    copies = [sample("original", photograph(1)), sample("again", photograph(1), "val")]
    copies += [sample(kind, change(photograph(1)), "test") for kind, change in PLANTED.items()]
    other = [sample("x", photograph(2)), sample("y", PLANTED["flipped"](photograph(2)))]
    samples = [*copies, *other, *STRANGERS]
    ties = tie_duplicates(samples, prints_of(samples), Effort(FingerprintCache(None)))
    assert set(ties) == {s.path for s in [*copies, *other]}
    assert len({ties[s.path] for s in copies}) == 1
    assert ties["x"] == ties["y"] != ties["original"]


def test_ties_of_copies_that_are_hidden_by_nearer_ones() -> None:
    """Three copies of each kind are each other's nearest, so that the kinds meet in a later round."""
    samples = list(STRANGERS[:6])
    for kind in ("half size", "cropped by 10 %", "flipped"):
        changed = np.asarray(PLANTED[kind](photograph(1)))
        for number in range(3):
            samples.append(sample(f"{kind} {number}", np.clip(changed.astype(int) + number, 0, 255).astype(np.uint8)))
    prints = prints_of(samples)
    (first,) = NearDuplicates(prints).search([partial(differ, np.arange(len(samples)))])
    edges = [(i, j) for i, j, _ in first.near]
    assert len(set(components(edges, len(samples))[6:].tolist())) > 1
    ties = tie_duplicates(samples, prints)
    assert set(ties) == {one.path for one in samples[6:]}
    assert len(set(ties.values())) == 1


def test_one_image_alone() -> None:
    assert find_near_duplicates(STRANGERS[:1], prints_of(STRANGERS[:1])) == []
    assert tie_duplicates(STRANGERS[:1], prints_of(STRANGERS[:1]), Effort(FingerprintCache(None))) == {}
