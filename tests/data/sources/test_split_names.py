from __future__ import annotations

import pytest

from ftexp.data.sources.split_names import split_of, splits_of


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Train TRAIN training Training trainset train_set training-images train2017 train1 trainval", "train"),
        ("val valid Validation VALID dev eval Evaluation val_set val2017 valid_images", "val"),
        ("test tests Testing TEST test1 test_set test-images holdout", "test"),
    ],
)
def test_usual_names(names: str, split: str) -> None:
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize("name", ["cat", "trains", "steam_train", "contest", "value", "devil", "train_test", "17", ""])
def test_other_names(name: str) -> None:
    assert split_of(name) is None


def test_longer_names_count_beside_another_split() -> None:
    assert splits_of(["cars_train", "cars_test"]) == {"cars_train": "train", "cars_test": "test"}
    assert splits_of(["steam_train", "bullet_train"]) == {"steam_train": None, "bullet_train": None}
    assert splits_of(["cars_train", "cars"]) == {"cars_train": None, "cars": None}
