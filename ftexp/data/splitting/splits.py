"""Splits samples into train, val and test."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ftexp.config import DataConfig
from ftexp.data.digests import ContentDigests
from ftexp.data.samples import SPLITS, Sample, SampleTable, sorted_naturally
from ftexp.data.splitting.cutting import cut_by_group, cut_by_time, cut_stratified
from ftexp.data.splitting.test_split import TestSplit
from ftexp.data.splitting.times import times_of
from ftexp.errors import DataError, listed

log = logging.getLogger(__name__)

By = Literal["stratified", "group", "time"]
COLUMNS = ("path", "label", "split", "group", "time")


@dataclass(frozen=True, slots=True)
class Splits:
    """The samples of a run by split.

    Attributes:
        train: the samples of the training set.
        val: the samples of the validation set.
        test: the test split, which can be used once.
        classes: the names of the classes of all splits in natural order; the index is the class number.
        digests: the digests of the images, each of which is read once for the whole run.
        copies: path -> name of the set of copies that a training or validation image belongs to; None: nobody has
            looked for copies.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: TestSplit
    classes: tuple[str, ...]
    digests: ContentDigests = field(default_factory=ContentDigests, repr=False)
    copies: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name -> class number."""
        return {name: index for index, name in enumerate(self.classes)}


def make_splits(samples: Sequence[Sample], config: DataConfig) -> Splits:
    """Assign every sample to a split, and put the test samples into a ``TestSplit``.

    Raises:
        DataError: when there are too few classes or images, or a class is in val or test but not in train.
    """
    return build_splits(assign_splits(samples, config))


def assign_splits(samples: Sequence[Sample], config: DataConfig, ties: Mapping[str, str] | None = None) -> SampleTable:
    """Assign every sample to a split, as ``data.split`` says.

    The result depends on the samples, the fractions and ``data.seed``, but not on the order of the samples.

    Args:
        samples: all samples; those of a source with splits of its own have their split.
        config: the way to split, the fractions and the seed.
        ties: path -> name of a set of samples that must stay together (``data.tie_duplicates``).

    Returns:
        The samples in the order of their paths, each with its split.

    Raises:
        DataError: when the samples cannot be split that way; the message says what to do.
    """
    if not samples:
        raise DataError("The data has no samples.")
    ordered = SampleTable.of(samples).in_order_of_paths()
    given = _given_splits(ordered)
    if config.split == "given" and not given:
        raise DataError("data.split=given, but the data has no splits of its own; use data.split=stratified.")
    if config.split == "given" or (config.split == "auto" and given):
        if ties is not None:
            raise DataError(
                "data.tie_duplicates=true needs new splits, and the data has splits of its own: add"
                " data.split=stratified to replace them."
            )
        return _keep_given(ordered, given, config)
    if "test" in given and config.split in ("group", "time"):
        return _keep_test(ordered, config, ties)
    if given:
        level = logging.WARNING if "test" in given else logging.INFO  # scores cannot be compared with published ones
        log.log(level, "The data's own splits are not used: data.split=%s makes new ones.", config.split)
    by: By = config.split if config.split in ("group", "time") else "group" if config.groups else "stratified"
    return _cut(ordered, {"val": config.val_fraction, "test": config.test_fraction}, config, by, ties)


def build_splits(assigned: Sequence[Sample], digests: ContentDigests | None = None) -> Splits:
    """Number the classes, check the classes of each split, and put the test samples into a ``TestSplit``.

    Args:
        assigned: all samples, each with its split.
        digests: the digests of images that have been read already.

    Raises:
        DataError: for fewer than two classes, and for a class in val or test that train lacks.
    """
    assigned = SampleTable.of(assigned)
    classes = tuple(sorted_naturally(set(assigned.values("label"))))
    if len(classes) < 2:
        raise DataError(f"There is only one class, {classes[0]!r}; classification needs at least two.")
    by_split = {split: assigned.of_splits(split) for split in SPLITS}
    present = {split: set(by_split[split].values("label")) for split in SPLITS}
    for split in ("val", "test"):
        unknown = sorted_naturally(present[split] - present["train"])
        if unknown:
            raise DataError(
                f"{split} has classes that train lacks: {listed(unknown)}. They could never be predicted;"
                f" put some of their images into train, or remove them from {split}."
            )
        absent = sorted_naturally(present["train"] - present[split])
        if absent:
            log.warning("No image of %s is in %s: its scores say nothing about these classes.", listed(absent), split)
    digests = digests or ContentDigests()
    return Splits(by_split["train"], by_split["val"], TestSplit(by_split["test"], digests), classes, digests)


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


def _given_splits(samples: SampleTable) -> set[str]:
    split_of = samples.values("split")
    given = {split for split in split_of if split is not None}
    if given and None in split_of:
        without = samples[split_of.index(None)].path
        raise DataError(
            f"Some samples have a split and some have none, for example {without}: give a split to all or to none."
        )
    return given


def _keep_given(samples: SampleTable, given: set[str], config: DataConfig) -> SampleTable:
    """Keep the splits of the source, and take those that it lacks out of train, by group if there are groups."""
    if "train" not in given:
        raise DataError(f"The data has the splits {', '.join(sorted(given))} but no train. Add a train split.")
    wanted = {"val": config.val_fraction, "test": config.test_fraction}
    fractions = {split: share for split, share in wanted.items() if split not in given}
    if not fractions:
        return samples
    train = samples.of_splits("train")
    by: By = "group" if any(group is not None for group in train.values("group")) else "stratified"
    for split, share in fractions.items():
        how = ", by group" if by == "group" else ""
        log.info(
            "The data has no %s split: %g of train is used for it%s (data.%s_fraction).",
            split,
            share,
            how,
            split,
        )
    others = samples.of_splits(*given - {"train"})
    return SampleTable.joined([others, _cut(train, fractions, config, by, None)]).in_order_of_paths()


def _keep_test(samples: SampleTable, config: DataConfig, ties: Mapping[str, str] | None) -> SampleTable:
    """Keep the test split of the source, and split the rest into train and val."""
    log.info("The data's own test split is kept; data.split=%s splits the rest into train and val.", config.split)
    test, rest = samples.of_splits("test"), samples.of_splits("train", "val")
    by: By = "time" if config.split == "time" else "group"
    cut = _cut(rest, {"val": config.val_fraction}, config, by, ties)
    return SampleTable.joined([test, cut]).in_order_of_paths()


def _cut(
    samples: SampleTable, fractions: dict[str, float], config: DataConfig, by: By, ties: Mapping[str, str] | None
) -> SampleTable:
    labels, paths = (samples.values(name) for name in ("label", "path"))
    assigned: Sequence[str | None]
    if by == "time":
        assigned = cut_by_time(times_of(samples), fractions, config.time_gap)
    elif by == "group" or ties is not None:
        groups = _groups_of(samples) if by == "group" else paths
        if ties is not None:
            groups = join_groups(groups, [ties.get(path) for path in paths])
        assigned = cut_by_group(labels, groups, fractions, config.seed)
    else:
        assigned = cut_stratified(labels, fractions, config.seed)
    rows = [row for row, split in enumerate(assigned) if split is not None]
    kept = samples.take(rows).replaced(split=[assigned[row] for row in rows])
    if len(kept) < len(samples):
        log.info(
            "%d samples are in the gaps of data.time_gap=%g and are left out.",
            len(samples) - len(kept),
            config.time_gap,
        )
    return kept


def _groups_of(samples: Sequence[Sample]) -> list[str]:
    without = [sample.path for sample in samples if sample.group is None]
    if without:
        raise DataError(
            f"The data is split by group, but {len(without)} of {len(samples)} samples have no group, for example"
            f" {without[0]}. Give every sample a group (data=manifest with data.group_column), or leave"
            " data.group_column and data.split=group out."
        )
    return [sample.group for sample in samples if sample.group is not None]


def join_groups(groups: Sequence[str], ties: Sequence[str | None]) -> list[str]:
    """Join groups that share a tie.

    Args:
        groups: the group of each sample.
        ties: the set of samples that each sample is tied to; None if it is tied to none.

    Returns:
        The joined group of each sample: the same for samples that any chain of groups and ties connects.
    """
    parents = {group: group for group in groups}  # each set of joined groups is a tree, and its root stands for it
    by_tie: dict[str, str] = {}

    def root(group: str) -> str:
        while parents[group] != group:
            parents[group] = parents[parents[group]]
            group = parents[group]
        return group

    for group, tie in zip(groups, ties, strict=True):
        if tie is not None:
            parents[root(group)] = root(by_tie.setdefault(tie, group))
    roots = [root(group) for group in groups]
    numbers = {name: str(number) for number, name in enumerate(dict.fromkeys(roots))}
    return [numbers[name] for name in roots]
