"""The folds of groups are scikit-learn's, without its table of groups by classes."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ftexp.data.splitting.group_table import Integers
from ftexp.probe import group_folds as module
from ftexp.probe.group_folds import group_folds


def scikit_learns(labels: Integers, groups: Integers, num_folds: int, seed: int) -> list[list[int]]:
    cut = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class that has fewer images than there are folds
        return [held.tolist() for _, held in cut.split(labels, labels, groups)]


@pytest.mark.parametrize("seed", range(40))
def test_they_are_scikit_learns(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUPS_AT_ONCE", 16)
    rng = np.random.default_rng(seed)
    num_folds, num_samples = int(rng.integers(2, 11)), int(rng.integers(60, 200))
    labels = rng.permutation(np.arange(num_samples) % rng.integers(2, 6))
    groups = rng.integers(0, num_samples, num_samples) if seed % 2 else rng.integers(0, 20, num_samples)
    found = [held.tolist() for held in group_folds(labels, groups, num_folds, seed)]
    assert found == scikit_learns(labels, groups, num_folds, seed)


def test_they_are_scikit_learns_where_one_image_has_a_copy() -> None:
    labels, groups = np.random.default_rng(0).integers(0, 100, 600), np.arange(600)
    groups[1] = 0
    assert [held.tolist() for held in group_folds(labels, groups, 5, 1)] == scikit_learns(labels, groups, 5, 1)


def test_many_groups_of_many_classes_take_little_memory() -> None:
    labels, groups = np.arange(4000) % 1000, np.arange(4000)
    tracemalloc.start()
    folds = group_folds(labels, groups, 4, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(held) for held in folds] == [1000] * 4
    assert all(len(np.unique(labels[held])) == 1000 for held in folds)
    assert peak < 24_000_000  # bytes; the table of all groups alone has 32 million
