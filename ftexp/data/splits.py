"""Cutting samples into train, val and test."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ftexp.config import DataConfig
from ftexp.data.samples import SPLITS, Sample, sorted_naturally
from ftexp.data.sealed import SealedTest
from ftexp.errors import DataError

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "group", "time")


@dataclass(frozen=True, slots=True)
class Splits:
    """What a run works with. Classes are numbered once, over all splits, in natural order of their names."""

    train: list[Sample]
    val: list[Sample]
    test: SealedTest
    classes: tuple[str, ...]

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name -> its number."""
        return {name: index for index, name in enumerate(self.classes)}


def make_splits(samples: Sequence[Sample], config: DataConfig) -> Splits:
    """Assign every sample to a split and seal the test split away.

    Raises:
        DataError: when there are too few classes or images, or a class is in val or test but not in train.
    """
    return seal(assign_splits(samples, config))


def assign_splits(samples: Sequence[Sample], config: DataConfig) -> list[Sample]:
    """The same samples in the order of their paths, each with its split.

    Splits that the source brings are kept; those it lacks are cut out of train. The outcome depends on the
    samples, the fractions and ``data.seed``, not on the order in which the samples are listed.
    """
    if not samples:
        raise DataError("The data holds no samples.")
    ordered = sorted(samples, key=lambda sample: sample.path)
    given = {sample.split for sample in ordered}
    if given == {None}:
        fractions = {"val": config.val_fraction, "test": config.test_fraction}
        return _cut(ordered, fractions, config.seed)
    if None in given:
        missing = next(sample.path for sample in ordered if sample.split is None)
        raise DataError(
            f"Some samples come with a split and some without, {missing} for one: give all or none of them."
        )
    if "train" not in given:
        raise DataError(f"The data brings the splits {', '.join(sorted(map(str, given)))} but no train.")
    return _cut_missing_out_of_train(ordered, given, config)


def seal(assigned: Sequence[Sample]) -> Splits:
    """Number the classes over all splits, check what each split holds, and put the test samples out of reach.

    Raises:
        DataError: with fewer than two classes, or a class in val or test that train lacks.
    """
    classes = tuple(sorted_naturally({sample.label for sample in assigned}))
    if len(classes) < 2:
        raise DataError(f"There is only one class, {classes[0]!r}; telling classes apart takes at least two.")
    by_split = {split: [sample for sample in assigned if sample.split == split] for split in SPLITS}
    present = {split: {sample.label for sample in by_split[split]} for split in SPLITS}
    for split in ("val", "test"):
        unknown = sorted_naturally(present[split] - present["train"])
        if unknown:
            raise DataError(
                f"{split} holds classes that train lacks: {', '.join(unknown)}. They could never be predicted;"
                f" put some of their images into train, or remove them from {split}."
            )
        absent = sorted_naturally(present["train"] - present[split])
        if absent:
            log.warning("No image of %s in %s: its scores say nothing about them.", ", ".join(absent), split)
    return Splits(by_split["train"], by_split["val"], SealedTest(by_split["test"]), classes)


def write_splits(path: Path, splits: Splits) -> None:
    """Write every sample as a row ``path,label,split,group,time``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for split, samples in (("train", splits.train), ("val", splits.val)):
            for s in samples:
                row = {"path": s.path, "label": s.label, "split": split, "group": s.group or "", "time": s.time or ""}
                writer.writerow(row)
        writer.writerows(splits.test.listing())


def _cut_missing_out_of_train(ordered: list[Sample], given: set[str | None], config: DataConfig) -> list[Sample]:
    wanted = {"val": config.val_fraction, "test": config.test_fraction}
    fractions = {split: share for split, share in wanted.items() if split not in given}
    if not fractions:
        return ordered
    for split, share in fractions.items():
        log.info(
            "The data brings no %s split: %g of train is set aside for it (data.%s_fraction).", split, share, split
        )
    train = [sample for sample in ordered if sample.split == "train"]
    others = [sample for sample in ordered if sample.split != "train"]
    return sorted(others + _cut(train, fractions, config.seed), key=lambda sample: sample.path)


def _cut(samples: list[Sample], fractions: dict[str, float], seed: int) -> list[Sample]:
    """Stratified: every class gives each split its share, at least one image."""
    counts = Counter(sample.label for sample in samples)
    num_splits = 1 + len(fractions)
    few = [f"{name} ({counts[name]})" for name in sorted_naturally(counts) if counts[name] < num_splits]
    if few:
        raise DataError(
            f"Too few images to put one of each class into train, {' and '.join(fractions)}: {', '.join(few)}."
            f" Every class needs at least {num_splits}: add images or remove the class."
        )
    members: dict[str, list[int]] = {name: [] for name in sorted_naturally(counts)}
    for index, sample in enumerate(samples):
        members[sample.label].append(index)
    assigned = list(samples)
    rng = np.random.default_rng(seed)
    for indices in members.values():
        shuffled = rng.permutation(indices).tolist()
        for split, count in allocate(len(indices), fractions).items():
            for _ in range(count):
                index = shuffled.pop()
                assigned[index] = replace(samples[index], split=split)
    return assigned


def allocate(num_samples: int, fractions: dict[str, float]) -> dict[str, int]:
    """Whole numbers that come closest to the shares, none of them 0, by largest remainders.

    Args:
        fractions: split -> share; train gets what is left of 1.

    Returns:
        Split -> count, train first; the counts add up to ``num_samples``, which must be at least their number.
    """
    shares = {"train": 1 - sum(fractions.values()), **fractions}
    exact = {split: share * num_samples for split, share in shares.items()}
    counts = {split: max(1, int(value)) for split, value in exact.items()}
    while sum(counts.values()) < num_samples:
        counts[max(counts, key=lambda split: exact[split] - counts[split])] += 1
    while sum(counts.values()) > num_samples:
        counts[max((s for s in counts if counts[s] > 1), key=lambda split: counts[split] - exact[split])] -= 1
    return counts
