"""Real collections whose images are not independent of each other, when they lie beside the repository."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import real_images

from ftexp.config import ManifestConfig
from ftexp.data.samples import Sample
from ftexp.data.sources.registry import read_samples
from ftexp.data.splitting.splits import assign_splits
from ftexp.data.splitting.times import times_of


def cut(folder: str, split: str, **columns: str) -> list[Sample]:
    file = str(real_images(folder) / "metadata.csv")
    config = ManifestConfig(source="manifest", file=file, path_column="file", split=split, **columns)
    return assign_splits(read_samples(config), config)


def share(samples: list[Sample], split: str, label: str) -> float:
    of_class = [sample for sample in samples if sample.label == label]
    return sum(sample.split == split for sample in of_class) / len(of_class)


@pytest.mark.parametrize(
    ("folder", "column", "tolerance"), [("sign_digits", "group_inferred", 0.03), ("bccd_cells", "image", 0.02)]
)
def test_no_group_crosses_and_classes_stay_near_their_shares(folder: str, column: str, tolerance: float) -> None:
    samples = cut(folder, "group", group_column=column)
    assert len({(s.group, s.split) for s in samples}) == len({s.group for s in samples})
    for label in Counter(s.label for s in samples):
        for split, wanted in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert share(samples, split, label) == pytest.approx(wanted, abs=tolerance)


def test_sign_digits_by_time() -> None:
    samples = cut("sign_digits", "time", time_column="timestamp")
    times = {split: times_of([s for s in samples if s.split == split]) for split in ("train", "val", "test")}
    assert times["train"].max() < times["val"].min()
    assert times["val"].max() < times["test"].min()
    assert [len(times[split]) / len(samples) for split in times] == pytest.approx([0.6, 0.2, 0.2], abs=0.01)
