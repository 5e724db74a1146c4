from __future__ import annotations

import csv
import logging
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftexp.audit.split_crossings import find_shared_groups
from ftexp.config import DataConfig
from ftexp.data.samples import Sample
from ftexp.data.splitting.splits import Splits, assign_splits, join_groups, make_splits, write_splits
from ftexp.errors import DataError

CONFIG = DataConfig(source="digits", val_fraction=0.2, test_fraction=0.1)


def samples_of(counts: dict[str, int], split: str | None = None) -> list[Sample]:
    return [Sample(f"{split or ''}/{name}/{i}", name, split) for name, count in counts.items() for i in range(count)]


def paths(splits: Splits) -> dict[str, list[str]]:
    parts = {"train": splits.train, "val": splits.val, "test": splits.test.take_samples()}
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
    assert "no test split: 0.1 of train is used" in caplog.text


def test_a_missing_val_split_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        splits = make_splits(samples_of({"a": 20, "b": 20}, "train"), CONFIG)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (28, 8, 4)
    assert "no val split: 0.2 of train" in caplog.text


def test_one_class() -> None:
    with pytest.raises(DataError, match="only one class, 'a'"):
        make_splits(samples_of({"a": 20}), CONFIG)


def test_no_samples() -> None:
    with pytest.raises(DataError, match="The data has no samples"):
        make_splits([], CONFIG)


def test_too_few_images_of_a_class() -> None:
    with pytest.raises(DataError, match=r"Too few images.*train, val and test: b \(2\)\. Every class needs at least 3"):
        make_splits(samples_of({"a": 20, "b": 2}), CONFIG)


def test_a_class_that_train_lacks() -> None:
    samples = samples_of({"a": 5, "b": 5}, "train") + samples_of({"a": 5, "z": 5}, "val")
    with pytest.raises(DataError, match=r"val has classes that train lacks: z\."):
        make_splits(samples, CONFIG)


def test_a_class_that_only_val_lacks_is_a_warning_and_shifts_no_number(caplog: pytest.LogCaptureFixture) -> None:
    samples = samples_of({"a": 5, "b": 5, "c": 5}, "train") + samples_of({"a": 5, "c": 5}, "val")
    splits = make_splits(samples, CONFIG)
    assert splits.class_to_idx == {"a": 0, "b": 1, "c": 2}
    assert "No image of b is in val" in caplog.text


def test_some_with_a_split_and_some_without() -> None:
    with pytest.raises(DataError, match="give a split to all or to none"):
        make_splits(samples_of({"a": 5, "b": 5}, "train") + samples_of({"a": 5}), CONFIG)


def test_no_train() -> None:
    with pytest.raises(DataError, match="has the splits val but no train"):
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


def table(rows: int) -> list[Sample]:
    return [Sample(f"{i:03d}", "ab"[i % 2], group=str(i // 4), time=str(i // 3)) for i in range(rows)]


def test_group_and_time_by_config() -> None:
    by_group = assign_splits(table(80), DataConfig(source="digits", split="group"))
    split_of = {(s.group, s.split) for s in by_group}
    assert len(split_of) == 20
    by_time = assign_splits(table(80), DataConfig(source="digits", split="time"))
    last = {split: max(int(s.time) for s in by_time if s.split == split) for split in ("train", "val", "test")}
    assert last["train"] < last["val"] < last["test"]


def test_gap_samples_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        kept = assign_splits(table(90), DataConfig(source="digits", split="time", time_gap=3.0))
    # A moment holds 3 samples; after train and after val the moments 1 and 2 later are within the gap.
    assert len(kept) == 90 - 2 * 2 * 3
    assert "12 samples are in the gaps of data.time_gap=3" in caplog.text


def test_group_split_without_groups() -> None:
    with pytest.raises(DataError, match=r"30 of 30 samples have no group, for example /a/0\..*data\.group_column"):
        assign_splits(samples_of({"a": 20, "b": 10}), DataConfig(source="digits", split="group"))


def test_explicit_stratified_cuts_given_splits_anew(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        splits = make_splits(samples_of({"a": 20, "b": 20}, "train"), DataConfig(source="digits", split="stratified"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (24, 8, 8)
    assert "are not used: data.split=stratified makes new ones" in caplog.text


def patients(**splits: int) -> list[Sample]:
    """So many patients in each split, each with 4 images, two of either class; numbered in the order of their times."""
    samples: list[Sample] = []
    for split, count in splits.items():
        for _ in range(count):
            number = len(samples) // 4
            group, time = f"p{number}", str(number)
            samples += [Sample(f"{number:03d}/{i}", "ab"[i % 2], split, group, time) for i in range(4)]
    return samples


def crossing(samples: list[Sample]) -> int:
    splits_of: dict[str | None, set[str | None]] = {}
    for sample in samples:
        splits_of.setdefault(sample.group, set()).add(sample.split)
    return sum(len(splits) > 1 for splits in splits_of.values())


def official_test(samples: list[Sample]) -> list[str]:
    return [sample.path for sample in samples if sample.split == "test"]


@pytest.mark.parametrize("split", ["auto", "given", "group", "time"])
def test_the_missing_val_is_cut_by_group_and_the_official_test_stays(
    split: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    samples = patients(train=20, test=6)
    assigned = assign_splits(samples, DataConfig(source="digits", split=split))  # type: ignore[arg-type]
    assert official_test(assigned) == official_test(samples)
    assert Counter(s.split for s in assigned) == {"train": 64, "val": 16, "test": 24}
    assert crossing(assigned) == 0
    if split == "time":
        last = max(int(s.time or "") for s in assigned if s.split == "train")
        assert last < min(int(s.time or "") for s in assigned if s.split == "val")
    said = {"auto": "0.2 of train is used for it, by group", "given": "for it, by group"}
    assert said.get(split, f"own test split is kept; data.split={split} splits the rest") in caplog.text


def test_a_missing_test_split_is_cut_by_group_too() -> None:
    samples = patients(train=20, val=5)
    assigned = assign_splits(samples, DataConfig(source="digits"))
    assert crossing(assigned) == 0
    assert Counter(s.split for s in assigned) == {"train": 64, "val": 20, "test": 16}


def test_a_group_that_crosses_into_the_official_test_is_left_to_the_audit() -> None:
    samples = patients(train=20, test=6)
    samples.append(Sample("extra", "a", "train", group="p25"))
    for split in ("auto", "group"):
        assigned = assign_splits(samples, DataConfig(source="digits", split=split))  # type: ignore[arg-type]
        assert official_test(assigned) == official_test(samples)
        assert len(find_shared_groups(assigned)) == crossing(assigned) == 1


def test_a_cut_by_group_of_official_train_needs_all_groups() -> None:
    samples = [*patients(train=20, test=6), Sample("x", "a", "train")]
    with pytest.raises(
        DataError, match=r"The data is split by group, but 1 of 81 samples have no group, for example x"
    ):
        assign_splits(samples, DataConfig(source="digits"))


def test_ties_hold_in_what_is_cut_beside_an_official_test() -> None:
    samples = patients(train=20, test=6)
    ties = {"000/0": "t", "010/0": "t", "019/1": "t"}
    assigned = assign_splits(samples, DataConfig(source="digits", split="group"), ties)
    assert len({s.split for s in assigned if s.group in ("p0", "p10", "p19")}) == 1
    assert official_test(assigned) == official_test(samples)


def test_moving_an_official_test_split_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assign_splits(patients(train=20, test=6), DataConfig(source="digits", split="stratified"))
    assert "The data's own splits are not used: data.split=stratified makes new ones" in caplog.text


def test_given_without_any() -> None:
    with pytest.raises(DataError, match=r"has no splits of its own; use data\.split=stratified"):
        make_splits(samples_of({"a": 20, "b": 20}), DataConfig(source="digits", split="given"))


def test_tied_samples_stay_together() -> None:
    samples = table(60)
    ties = {"000": "t", "017": "t", "031": "t", "044": "u", "059": "u"}
    assigned = {s.path: s.split for s in assign_splits(samples, CONFIG, ties)}
    assert assigned["000"] == assigned["017"] == assigned["031"]
    assert assigned["044"] == assigned["059"]
    assert set(assigned.values()) == {"train", "val", "test"}


def test_ties_need_a_cut_of_our_own() -> None:
    with pytest.raises(DataError, match=r"add data\.split=stratified"):
        assign_splits(samples_of({"a": 9, "b": 9}, "train"), CONFIG, {})


def test_ties_join_groups_over_chains() -> None:
    joined = join_groups(["g1", "g2", "g3", "g4"], ["t", "t", None, None])
    assert joined[0] == joined[1]
    assert len(set(joined)) == 3
    # g1 - t - g2 and g2 - u - g3 make one group of three.
    chain = join_groups(["g1", "g2", "g2", "g3", "g4"], ["t", "t", "u", "u", None])
    assert len(set(chain[:4])) == 1
    assert chain[4] != chain[0]
    assert join_groups(["d", "b", "a", "c"], [None, "t", "u", "u"]) == ["0", "1", "2", "2"]
