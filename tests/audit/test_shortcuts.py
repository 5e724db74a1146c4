from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ftexp.audit import label_from_field, shortcuts
from ftexp.audit.cache import FingerprintCache
from ftexp.audit.fingerprint_table import Fingerprint
from ftexp.audit.shortcuts import find_shortcuts
from ftexp.data.samples import Sample

NOTHING = np.zeros(0)


def table(
    name: Callable[[int, str], str], facts: Callable[[int, str], dict[str, object]]
) -> tuple[list[str], list[float]]:
    """Names and scores of the guilty fields among 200 samples whose names and facts are given."""
    rng = np.random.default_rng(0)
    samples, prints = [], []
    for number in range(200):
        label = "ab"[rng.integers(2)]
        samples.append(Sample(name(number, label), label, "train"))
        known = {"bytes": int(rng.integers(1000, 2000)), "width": 64, "height": 64, "format": "PNG", "mode": "RGB"}
        prints.append(Fingerprint("", "", NOTHING, 64, known | facts(number, label), NOTHING, NOTHING))
    found = find_shortcuts(samples, prints, FingerprintCache(None))
    return [finding.path_a for finding in found], [finding.score for finding in found]


def innocent_name(number: int, label: str) -> str:
    return f"data/{label}/{np.random.default_rng(number).integers(10**8):08d}.png"


def test_innocent_data() -> None:
    assert table(innocent_name, lambda number, label: {}) == ([], [])


def test_file_name() -> None:
    fields, scores = table(
        lambda number, label: f"x/{label}/{'cam' if label == 'a' else 'scan'}_{number}.png", lambda n, c: {}
    )
    assert fields == ["file name"]
    assert scores[0] > 0.95


def test_folder_but_not_the_folder_of_the_class() -> None:
    def name(number: int, label: str) -> str:
        return f"data/{'hospital1' if label == 'a' else 'hospital2'}/{label}/{innocent_name(number, 'x')[-12:]}"

    assert table(name, lambda number, label: {})[0] == ["folder"]


def test_the_folder_of_a_class_may_be_spelt_in_another_way() -> None:
    def name(number: int, label: str) -> str:
        return innocent_name(number, "a\u200b" if label == "a" else " b ")

    assert table(name, lambda number, label: {}) == ([], [])


def test_extension_size_dimensions_and_camera() -> None:
    def ending(number: int, label: str) -> str:
        return innocent_name(number, label).replace("png", "png" if label == "a" else "jpg")

    assert table(ending, lambda n, c: {})[0] == ["extension"]
    assert table(innocent_name, lambda n, c: {"width": 100 if c == "a" else 99})[0] == ["width"]
    assert "bytes" in table(innocent_name, lambda n, c: {"bytes": 9000 if c == "a" else 500})[0]
    assert table(innocent_name, lambda n, c: {"exif_model": "X" if c == "a" else "Y"})[0] == ["exif_model"]


def test_a_weak_hint_is_not_named() -> None:
    rng = np.random.default_rng(5)
    weak = table(innocent_name, lambda n, c: {"exif_model": c if rng.random() < 0.1 else "same"})
    assert weak == ([], [])


def test_only_the_training_split_is_looked_at() -> None:
    samples = [Sample(f"{i}.png", "ab"[i % 2], "test") for i in range(40)]
    facts = {"bytes": 1, "width": 1, "height": 1}
    prints = [Fingerprint("", "", NOTHING, 1, {**facts, "bytes": i % 2}, NOTHING, NOTHING) for i in range(40)]
    assert find_shortcuts(samples, prints, FingerprintCache(None)) == []


def test_scores_are_kept_for_the_same_labels_and_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [Sample(f"{'cam' if n % 2 else 'scan'}_{n}.png", "ab"[n % 2], "train") for n in range(40)]
    facts: dict[str, object] = {"bytes": 9, "width": 64, "height": 64, "format": "PNG", "mode": "RGB"}
    prints = [Fingerprint("", "", NOTHING, 64, facts, NOTHING, NOTHING) for _ in samples]
    asked: list[str] = []
    original = label_from_field.balanced_accuracy

    def counted(name: str, *arguments: object) -> tuple[float, float]:
        asked.append(name)
        return original(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shortcuts, "balanced_accuracy", counted)
    with closing(FingerprintCache(tmp_path / "cache.sqlite")) as cache:
        first = find_shortcuts(samples, prints, cache)
        assert [(one.path_a, one.score) for one in first] == [("file name", 1.0)]
        assert asked == ["file name"]
        assert find_shortcuts(samples, prints, cache) == first
        assert asked == ["file name"]
        find_shortcuts([replace(samples[0], label="b"), *samples[1:]], prints, cache)
        find_shortcuts([replace(samples[0], path="x.png"), *samples[1:]], prints, cache)
        assert asked == ["file name"] * 3
